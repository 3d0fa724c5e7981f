"""What every graph encoder is: vectors of all users and all items from one propagation.

Axes: ``N`` nodes, ``U`` users, ``I`` items, ``B`` batch, ``D`` width, ``*S`` any shape.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.node_slice import NodeSlice
from recembed.rows.processes import Processes

__all__ = ["AuxiliaryVectors", "BatchVectors", "GraphEncoder"]


class AuxiliaryVectors(NamedTuple):
    """Other vectors of the same step, on which the loss is taken once more, times ``weight``.

    Shapes:
        users: ``[B, d]``; positives: ``[*S, d]``; negatives: ``[*S, d]``.
    """

    weight: float
    users: Tensor
    positives: Tensor
    negatives: Tensor


class BatchVectors(NamedTuple):
    """What one training step reads.

    Shapes:
        users: ``[B, D]``; positives: ``[*S, D]``; negatives: ``[*S, D]``; penalty: a scalar.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    penalty: Tensor
    auxiliary: tuple[AuxiliaryVectors, ...] = ()


class GraphEncoder(nn.Module, ABC):
    """Vectors of users and items that a model scores by their dot product.

    ``forward`` gives all of them; ``batch`` gives those of one training step and its regulariser, for less.

    Attributes:
        num_users: Users; num_items: items; embedding_dim: width of the vectors that come out.
        nodes: Those that this process holds and propagates.
    """

    def __init__(self, graph: InteractionGraph, embedding_dim: int) -> None:
        super().__init__()
        self.num_users, self.num_items, self.embedding_dim = graph.num_users, graph.num_items, embedding_dim
        self.nodes = NodeSlice(graph.num_nodes)

    @abstractmethod
    def propagate(self) -> Tensor:
        """Return the vectors of all nodes, ``[N, D]``, users first."""

    @abstractmethod
    def rows(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of ``nodes``, and the vectors that are regularised there.

        Shapes:
            nodes: int64 ``[n]``, all different, users first. Returns ``[n, D]`` and ``[n, d]``.
        """

    def by_layer(self) -> list[Tensor]:
        """Return the vectors of each layer alone, ``[N, d]``, layer 0 first; none where there is one layer, or no telling."""
        return []

    def spread(self, processes: Processes) -> None:
        """Train with these processes from now on, each holding and propagating a slice of the nodes, if it can be cut.

        ``propagate`` and ``forward`` still return all nodes, and all processes ask for them at once; ``rows``, ``batch``
        and ``by_layer`` are for one process. The base leaves each process with all nodes, which is right too.
        """

    def start_epoch(self, epoch: int) -> None:
        """Make ready for an epoch of training, counted from 0; a resumed training asks for the same one again."""

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return users ``[U, D]`` and items ``[I, D]``, views of one propagation."""
        users, items = self.propagate().split_with_sizes([self.num_users, self.num_items])  # one gradient for both
        return users, items

    def batch(self, users: Tensor, positives: Tensor, negatives: Tensor) -> BatchVectors:
        """Return the vectors of one step and ``½ Σ‖row‖² / B``, where a node counts as often as the step names it.

        Shapes:
            users: int64 ``[B]``; positives, negatives: int64 of any shape, counted among the items.
        """
        items = torch.cat([positives.flatten(), negatives.flatten()]) + self.num_users
        nodes, places, counts = torch.unique(torch.cat([users, items]), return_inverse=True, return_counts=True)
        vectors, regularised = self.rows(nodes)
        penalty = 0.5 * (regularised.square().sum(1) * counts).sum() / len(users)
        parts = vectors.index_select(0, places).split_with_sizes([len(users), positives.numel(), negatives.numel()])
        return BatchVectors(parts[0], parts[1].view(*positives.shape, -1), parts[2].view(*negatives.shape, -1), penalty)
