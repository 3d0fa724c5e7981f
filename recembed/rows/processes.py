"""``Processes``: what a store and the methods on it may ask of the processes that train together.

One process answers at once; ``recembed.rows.process_group`` asks the others.
Axes: ``N`` values of this process, ``A`` values of all of them.
"""

from collections.abc import Callable
from typing import Any, Self, TypeVar

from torch import Tensor

__all__ = ["Processes"]

_Answer = TypeVar("_Answer")


class Processes:
    """A single process.

    Attributes:
        rank: The number of this process.
        count: How many there are.
        share: Rows of this process's batch, divided by those of the global batch: the weight of its gradients.

    >>> import torch
    >>> Processes().gather(torch.tensor([3, 1])).tolist(), Processes().span(5)
    ([3, 1], (0, 5))
    """

    rank: int = 0
    count: int = 1

    def __init__(self) -> None:
        self.share = 1.0

    def gather(self, values: Tensor) -> Tensor:
        """Return the values ``[N, ...]`` of all processes one after the other, ``[A, ...]``, without gradient."""
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes; a gradient that reaches it reaches the values of each of them."""
        return values

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, without gradient."""
        return values.detach()

    def span(self, size: int) -> tuple[int, int]:
        """Return where the ``size`` values of this process begin among those of all, and how many these are."""
        return 0, size

    def broadcast(self, values: Tensor, rank: int) -> None:
        """Fill contiguous ``values`` with those of process ``rank``."""

    def tell(self, word: Any) -> list[Any]:
        """Return what each process said, in their order: plain values."""
        return [word]

    def agree(self, what: str, word: Any) -> None:
        """Refuse to go on where the processes differ in ``word``; ``what`` names it."""

    def first_does(self, work: Callable[[], _Answer]) -> _Answer:
        """Let rank 0 do ``work``, however long it takes, and return its answer, a plain value, on every process."""
        return work()

    def beside(self) -> Self:
        """Return the same processes, to be asked from another thread; all call it at the same place."""
        return self

    def __deepcopy__(self, memo: object) -> "Processes":
        """There is one group of processes, however many models use it."""
        return self
