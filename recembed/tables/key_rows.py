"""``KeyRows``: a fixed number of rows, the keys that own them now, and the history by which they change hands.

Axes: ``Z`` rows, ``*S`` any shape of keys, ``N`` keys of a step, ``L`` places of the history.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recembed.hashing import MISSING_KEY
from recembed.tables.eviction import AdmissionFilter, EvictionPolicy, admitted, eviction_scores
from recembed.tables.fresh_rows import uniform_draws
from recembed.tables.sorted_keys import find_sorted

__all__ = ["Admission", "KeyRows"]


@dataclass(frozen=True, slots=True)
class Admission:
    """The rules by which rows change hands; see ``ZeroCollisionConfig``."""

    policy: EvictionPolicy
    decay_exponent: float
    filter: AdmissionFilter
    threshold: float
    history: int


class KeyRows(nn.Module):
    """Keys → rows; unknown keys → row ``Z``. All state are buffers of fixed size, so a checkpoint holds it.

    Args:
        size: ``Z``.
        admission: The rules.
        seeded: Salt of the draws.
    """

    def __init__(self, size: int, admission: Admission, seeded: int) -> None:
        super().__init__()
        self.size = size
        self.admission = admission
        self.register_buffer("salt", torch.tensor(seeded, dtype=torch.int64))
        self.register_buffer("sorted_keys", torch.full((size,), MISSING_KEY, dtype=torch.int64))  # free rows in front
        self.register_buffer("rows", torch.arange(size, dtype=torch.int32))  # of the sorted keys
        self.register_buffer("counts", torch.zeros(size, dtype=torch.int64))  # by row, as the two below
        self.register_buffer("last_access", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("generations", torch.zeros(size, dtype=torch.int64))  # owners a row has had
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("history", torch.full((admission.history,), MISSING_KEY, dtype=torch.int64))
        self.register_buffer("history_steps", torch.zeros(admission.history, dtype=torch.int32))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))  # since the last admission

    def forward(self, keys: Tensor) -> Tensor:
        """Return the row of each key, ``0 .. Z``, int64 ``[*S]``."""
        places, found = find_sorted(self.get_buffer("sorted_keys"), keys)
        return torch.where(found, self.get_buffer("rows")[places].long(), self.size)

    def record(self, keys: Tensor) -> int:
        """Count one step's keys, int64 ``[N]``: known ones by row, unknown ones in the history; return the step."""
        step = self.get_buffer("step")
        step += 1
        rows = self(keys)
        known = rows[rows < self.size]
        self.get_buffer("counts").index_add_(0, known, torch.ones_like(known))
        self.get_buffer("last_access")[known] = step
        unknown = keys[rows == self.size]
        length, written = self.admission.history, self.get_buffer("written")
        places = (int(written) + torch.arange(len(unknown), device=keys.device))[-length:] % length  # a ring
        self.get_buffer("history")[places] = unknown[-length:]
        self.get_buffer("history_steps")[places] = step.int()
        written += len(unknown)
        return int(step)

    def admit(self) -> Tensor:
        """Give rows to the best of old and new keys, clear the history, and return the rows with new owners, int64."""
        keys, counts, last = self._candidates()
        owners = self._owners()
        free = owners == MISSING_KEY
        rules, now = self.admission, self.get_buffer("step")
        old = eviction_scores(
            rules.policy, self.get_buffer("counts"), self.get_buffer("last_access"), now, rules.decay_exponent
        ).masked_fill(free, -1)
        new = eviction_scores(rules.policy, counts, last, now, rules.decay_exponent)
        best = torch.cat([old, new]).argsort(descending=True, stable=True)[: self.size]  # ties favour incumbents
        stays = torch.zeros(self.size + len(keys), dtype=torch.bool, device=keys.device)
        stays[best] = True
        entering = best[best >= self.size] - self.size  # by falling score
        rows = (free | ~stays[: self.size]).nonzero().squeeze(1)[: len(entering)]  # none is evicted while one is free
        owners[rows] = keys[entering]
        self.get_buffer("counts")[rows] = counts[entering]
        self.get_buffer("last_access")[rows] = last[entering]
        self.get_buffer("generations")[rows] += 1
        order = owners.argsort(stable=True)
        self.get_buffer("sorted_keys").copy_(owners[order])
        self.get_buffer("rows").copy_(order)
        return rows

    def _owners(self) -> Tensor:
        owners = torch.empty_like(self.get_buffer("sorted_keys"))  # [Z] by row
        owners[self.get_buffer("rows").long()] = self.get_buffer("sorted_keys")
        return owners

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the admissible unknown keys with count and last step, and forget the history."""
        written = self.get_buffer("written")
        filled = min(int(written), self.admission.history)
        history, steps = self.get_buffer("history")[:filled], self.get_buffer("history_steps")[:filled].long()
        written.zero_()
        keys, place, counts = torch.unique(history, return_inverse=True, return_counts=True)
        last = torch.zeros_like(keys).scatter_reduce_(0, place, steps, "amax")
        draws = uniform_draws(keys ^ self.get_buffer("salt") ^ self.get_buffer("step"), 1).squeeze(1)
        chosen = admitted(self.admission.filter, counts, threshold=self.admission.threshold, draws=draws)
        return keys[chosen], counts[chosen], last[chosen]
