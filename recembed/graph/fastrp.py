"""FastRP: node vectors without training, by powers of the transition matrix and a sparse random projection.

Axes: ``N`` nodes, users first; ``D`` width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.streamed import degree_sums, streamed_product

__all__ = ["FastRP"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FastRP:
    """``Σ w_i normalise(T^i R')`` with ``T = D^-1 A`` and ``R' = diag(degree^beta) R``.

    ``R`` is very sparse: ``±sqrt(s)`` with probability ``1 / 2s`` each, ``s = sqrt(N)``. Edges are read as a stream, so a
    mapped graph may be larger than memory. A node without edges has a zero vector. Two seeds give spaces that cannot be
    compared.

    Attributes:
        embedding_dim: Width.
        powers: The weight of each power, from the first on; those of users reach items in odd ones.
        beta: Below 0 damps the columns of hubs.
        normalise: Bring the rows of each power to length 1 before they are added.
        standardise: Bring every column to mean 0 and deviation 1 over the nodes that have edges.
        seed: Of ``R``.

    Raises:
        ConfigError: no power has a weight, or the width is below 1.

    Reference:
        Chen et al., Fast and Accurate Network Embeddings via Very Sparse Random Projection, CIKM 2019, algorithm 1.

    >>> users, items = FastRP(embedding_dim=8)(InteractionGraph.of([0, 0, 1], [0, 1, 1]))
    >>> users.shape, items.shape
    (torch.Size([2, 8]), torch.Size([2, 8]))
    """

    embedding_dim: int = 64
    powers: tuple[float, ...] = (0.0, 1.0, 1.0, 4.0)
    beta: float = -0.5
    normalise: bool = True
    standardise: bool = False
    seed: int = 0

    def __call__(self, graph: InteractionGraph) -> tuple[Tensor, Tensor]:
        """Return users ``[U, D]`` and items ``[I, D]``."""
        if self.embedding_dim < 1 or not any(self.powers):
            raise ConfigError(
                f"embedding_dim = {self.embedding_dim}, powers = {self.powers}: expected a width of at least 1 and a "
                "weight that is not 0"
            )
        degrees = degree_sums(graph.edges)  # [N]
        inverse = torch.where(degrees > 0, 1 / degrees, 0.0)[:, None]
        damping = torch.where(degrees > 0, degrees.clamp(min=1e-30) ** self.beta, 0.0)
        current = self.projection(graph.num_nodes) * damping[:, None]
        total = torch.zeros_like(current)
        for weight in self.powers:
            current = streamed_product(graph.edges, current) * inverse  # [N, D]
            if weight:
                total += weight * (F.normalize(current, dim=1) if self.normalise else current)
        if self.standardise:
            some = degrees > 0
            total[some] = (total[some] - total[some].mean(0)) / total[some].std(0).clamp(min=1e-12)
        return total[: graph.num_users], total[graph.num_users :]

    def projection(self, nodes: int) -> Tensor:
        """Return ``R``, float32 ``[N, D]``."""
        generator = torch.Generator().manual_seed(self.seed)
        s = math.sqrt(nodes)
        chance = torch.rand(nodes, self.embedding_dim, generator=generator) * 2 * s
        return math.sqrt(s) * ((chance < 1).float() - ((chance >= 1) & (chance < 2)).float())
