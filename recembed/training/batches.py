"""What the trainer asks of the training data."""

from collections.abc import Iterator
from typing import Protocol

from recembed.batch import Batch

__all__ = ["Batches"]


class Batches(Protocol):
    """What the trainer asks of the training data: ``recembed.data.Loader``, or anything like it."""

    def __len__(self) -> int:
        """Return the batches of an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch, or after ``resume`` the rest of it."""

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one."""

    def state(self) -> dict[str, int]:
        """Return the position."""

    def resume(self, state: dict[str, int]) -> None:
        """Go to a position."""
