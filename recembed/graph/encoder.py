"""What every graph encoder is: vectors of all users and all items from one propagation.

Axes: ``N`` nodes, ``U`` users, ``I`` items, ``B`` batch, ``D`` width.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from recembed.graph.interaction_graph import InteractionGraph

__all__ = ["GraphEncoder"]


class GraphEncoder(nn.Module, ABC):
    """Vectors of users and items that a model scores by their dot product.

    Attributes:
        num_users: Users; num_items: items; embedding_dim: width of the vectors that come out.
    """

    def __init__(self, graph: InteractionGraph, embedding_dim: int) -> None:
        super().__init__()
        self.num_users, self.num_items, self.embedding_dim = graph.num_users, graph.num_items, embedding_dim

    @abstractmethod
    def propagate(self) -> Tensor:
        """Return the vectors of all nodes, ``[N, D]``, users first."""

    @abstractmethod
    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the regulariser of one batch, a scalar, after ``forward`` of the same step.

        Shapes:
            users, positives: int64 ``[B]``; negatives: int64 ``[B]`` or ``[B, n]``; all counted on their own side.
        """

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return users ``[U, D]`` and items ``[I, D]``, views of one propagation."""
        users, items = self.propagate().split_with_sizes([self.num_users, self.num_items])  # one gradient for both
        return users, items

    def _mean_square(self, vectors: Tensor, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return ``½ Σ‖row‖² / B`` over the rows of a batch in ``vectors``, ``[N, D]``."""
        items = torch.cat([positives.flatten(), negatives.flatten()]) + self.num_users
        rows = vectors.index_select(0, torch.cat([users, items]))
        return 0.5 * rows.square().sum() / len(users)
