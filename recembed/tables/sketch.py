"""``HotSketch``: which ids carry most of the gradient, in a few bytes an id, and which rows those ids own.

Axes: ``*S`` any shape of keys, ``U`` unique keys, ``w`` buckets, ``H`` hot rows.
"""

import math

import torch
from torch import Tensor, nn

from recembed.hashing import MISSING_KEY, hash_rows

__all__ = ["SLOTS", "HotSketch", "sketch_bytes"]

SLOTS = 4
_COLD = -1


def sketch_bytes(buckets: int, capacity: int) -> int:
    """Return the bytes of a sketch: 16 a slot, 4 a hot row, 24 for its salt and counters.

    >>> sketch_bytes(10, 20) == HotSketch(10, 20, 5.0, 0.9, seeded=1).bytes
    True
    """
    return 16 * SLOTS * buckets + 4 * capacity + 24


class HotSketch(nn.Module):
    """Buckets of four slots ``(key, score, hot row)``; all of it are buffers, so a checkpoint holds it.

    A key belongs to the bucket its hash names. A new key takes an empty slot; where there is none, the strongest new
    key of the batch overwrites the weakest cold slot of its bucket and inherits its score (space-saving). Slots of hot
    keys are never overwritten.

    Args:
        buckets: ``w``.
        capacity: ``H``, hot rows to give away.
        threshold: Score from which a key may own a hot row, and below which it loses it.
        decay: Factor on all scores whenever their sum exceeds ``10 * capacity * threshold``.
        seeded: Salt of the hash.
    """

    def __init__(self, buckets: int, capacity: int, threshold: float, decay: float, seeded: int) -> None:
        super().__init__()
        self.buckets, self.capacity, self.threshold, self.decay = buckets, capacity, threshold, decay
        self.limit = 10 * capacity * threshold
        self.register_buffer("salt", torch.tensor(seeded, dtype=torch.int64))
        self.register_buffer("keys", torch.full((buckets, SLOTS), MISSING_KEY, dtype=torch.int64))
        self.register_buffer("scores", torch.zeros(buckets, SLOTS))
        self.register_buffer("rows", torch.full((buckets, SLOTS), _COLD, dtype=torch.int32))
        self.register_buffer("free", torch.arange(capacity, dtype=torch.int32))  # the first ``used`` are taken
        self.register_buffer("used", torch.zeros((), dtype=torch.int64))
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))  # decayed sum of all scores ever given

    @property
    def bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def hot_rows(self, keys: Tensor) -> Tensor:
        """Return the hot row of each key, ``0 .. H-1``, or -1: int64, the shape of ``keys``."""
        bucket = self._bucket(keys)
        same = self.get_buffer("keys")[bucket] == keys.unsqueeze(-1)  # [*S, 4]
        return torch.where(same, self.get_buffer("rows")[bucket].long(), _COLD).amax(-1)

    def add(self, keys: Tensor, scores: Tensor) -> None:
        """Count scores in.

        Shapes:
            keys: int64 ``[U]``, unique; scores: float32 ``[U]``, those at or below zero are left out.
        """
        self.get_buffer("total").add_(scores.sum())
        keys, scores = keys[scores > 0], scores[scores > 0]
        bucket, slot, found = self._find(keys)
        self.get_buffer("scores")[bucket[found], slot[found]] += scores[found]
        self._insert(keys[~found], scores[~found], bucket[~found])

    def promote(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Give hot rows to the cold ones of ``keys`` whose score has reached the threshold, the strongest first.

        Shapes:
            keys: int64 ``[U]``, unique. Returns the promoted keys and their hot rows, int64 ``[P]`` each.
        """
        bucket, slot, found = self._find(keys)
        scores, rows = self.get_buffer("scores"), self.get_buffer("rows")
        ready = found & (rows[bucket, slot] == _COLD) & (scores[bucket, slot] >= self.threshold)
        place = ready.nonzero().squeeze(1)
        order = scores[bucket[place], slot[place]].argsort(descending=True, stable=True)
        used = self.get_buffer("used")
        start = int(used)
        place = place[order[: self.capacity - start]]
        given = self.get_buffer("free")[start : start + len(place)]
        rows[bucket[place], slot[place]] = given
        used += len(place)
        return keys[place], given.long()

    def decay_scores(self) -> None:
        """Where the sum of scores exceeds its limit, decay all of them and demote the keys that fall too low."""
        total = self.get_buffer("total")
        excess = float(total) / self.limit
        if excess <= 1:
            return
        factor = self.decay ** math.ceil(math.log(excess) / -math.log(self.decay))
        scores, rows, used = self.get_buffer("scores"), self.get_buffer("rows"), self.get_buffer("used")
        scores *= factor
        total *= factor
        fallen = (rows != _COLD) & (scores < self.threshold)
        freed = rows[fallen]
        used -= len(freed)
        self.get_buffer("free")[int(used) : int(used) + len(freed)] = freed
        rows[fallen] = _COLD

    def hot(self) -> tuple[Tensor, Tensor]:
        """Return the hot keys, sorted, and their rows, int64 ``[hot keys]`` each."""
        rows = self.get_buffer("rows")
        keys, order = self.get_buffer("keys")[rows != _COLD].sort()
        return keys, rows[rows != _COLD][order].long()

    def _bucket(self, keys: Tensor) -> Tensor:
        return hash_rows(keys, self.get_buffer("salt"), self.buckets)

    def _find(self, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bucket = self._bucket(keys)
        same = self.get_buffer("keys")[bucket] == keys.unsqueeze(1)  # [U, 4]
        return bucket, same.int().argmax(1), same.any(1)

    def _insert(self, keys: Tensor, scores: Tensor, bucket: Tensor) -> None:
        order = scores.argsort(descending=True, stable=True)
        order = order[bucket[order].argsort(stable=True)]  # by bucket, the strongest first
        keys, scores, bucket = keys[order], scores[order], bucket[order]
        _, newcomers = torch.unique_consecutive(bucket, return_counts=True)
        rank = torch.arange(len(keys), device=keys.device) - (newcomers.cumsum(0) - newcomers).repeat_interleave(
            newcomers
        )
        held = self.get_buffer("scores")[bucket]  # [U, 4]
        empty = self.get_buffer("keys")[bucket] == MISSING_KEY
        strength = held.masked_fill(self.get_buffer("rows")[bucket] != _COLD, math.inf).masked_fill(empty, -1)
        weakest = strength.sort(dim=1, stable=True)
        place = rank.clamp(max=SLOTS - 1).unsqueeze(1)
        cold = weakest.values.gather(1, place).squeeze(1) < math.inf
        taken = (rank < SLOTS) & (rank <= empty.sum(1)) & cold
        bucket, slot = bucket[taken], weakest.indices.gather(1, place).squeeze(1)[taken]
        self.get_buffer("keys")[bucket, slot] = keys[taken]
        self.get_buffer("scores")[bucket, slot] += scores[taken]
