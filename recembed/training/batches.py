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
        """Yield the batches of the epoch, or after ``resume`` the rest of it.

        On a GPU and over processes the next batch is asked for before the step of this one: both must last, and what is
        drawn for a batch must not depend on torch's generators if a resumed run is to be the one that was cut.
        """

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one."""

    def state(self) -> dict[str, int]:
        """Return the position."""

    def resume(self, state: dict[str, int]) -> None:
        """Go to a position."""
