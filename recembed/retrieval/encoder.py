"""What retrieval training asks of a model: vectors of users and items, all of them or those of one step."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from recembed.graph.encoder import BatchVectors

__all__ = ["Encoder"]


@runtime_checkable
class Encoder(Protocol):
    """A module that gives every user and every item a vector; scores are inner products of them.

    The encoders of ``recembed.graph`` are such modules. One that has ``start_epoch(epoch)`` hears of each epoch, counted
    from 0, before its first step; what it draws then is to depend on its seed and the epoch alone.

    Attributes:
        num_users: Users.
        num_items: Items.
    """

    num_users: int
    num_items: int

    def propagate(self) -> Tensor:
        """Return the vectors of all nodes, float32 ``[N, D]``, users first."""
        ...

    def batch(self, users: Tensor, positives: Tensor, negatives: Tensor) -> BatchVectors:
        """Return the vectors of one training step and its regulariser.

        Shapes:
            users, positives: int64 ``[B]``; negatives: int64 ``[S]`` or ``[B, n]``.
        """
        ...
