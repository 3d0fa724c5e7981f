"""``Asked``: what a batch wants from the store, before the store has answered; ``Ahead``: a batch that asks early."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from recembed.batch import Batch
from recembed.embedding.lookup import Lookups, Request

__all__ = ["Ahead", "Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The requests of one batch.

    Attributes:
        batch: The batch.
        training: Whether they are those of training mode.
        lookups: All requests, to be gathered.
        ids: What each group of columns looks up, int64 ``[B, n]``.
        columns, weights: The requests of each group, for vectors and for first-order weights, by width.
        jagged: Those of each jagged feature.
    """

    batch: Batch
    training: bool
    lookups: Lookups
    ids: list[Tensor]
    columns: list[dict[int, Request]]
    jagged: list[dict[int, Request]]
    weights: list[dict[int, Request]]


class Ahead:
    """Batches whose lookups have begun before they are embedded: the one that comes next, and the one after it."""

    def __init__(self) -> None:
        self._asked: deque[Asked] = deque(maxlen=2)
        self._embedded: Batch | None = None

    def begin(self, asked: Asked) -> None:
        """Begin this lookup; of three the oldest is forgotten."""
        asked.lookups.start_sparse_data_dist()
        self._asked.append(asked)

    def wait(self) -> None:
        """Let the addresses go."""
        for asked in self._asked:
            asked.lookups.wait_sparse_data_dist()

    def take(self, batch: Batch, *, training: bool) -> Asked | None:
        """Return what was begun for this very batch, once, where it is embedded with gradient and in the same mode."""
        if not torch.is_grad_enabled():
            return None
        self._embedded = batch
        found = next((asked for asked in self._asked if asked.batch is batch and asked.training == training), None)
        while found is not None and self._asked.popleft() is not found:
            pass
        return found

    def embedded(self, batch: Batch) -> bool:
        """Return whether it was this very batch that was last embedded with gradient."""
        return self._embedded is batch

    def drop(self) -> None:
        """Forget everything."""
        self._asked.clear()
        self._embedded = None

    def __deepcopy__(self, memo: object) -> "Ahead":
        """A copy of a model has begun nothing."""
        return Ahead()
