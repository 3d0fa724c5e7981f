"""LINE: node vectors from sampled edges, by who is linked (1st order) or by who has the same neighbours (2nd order).

Axes: ``N`` nodes, users first; ``B`` edges of a step, ``n`` negatives, ``D`` width.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import ConfigError, TrainingError
from recembed.graph.alias import AliasSampler
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.streamed import degree_sums

__all__ = ["Line", "edge_gradient"]

_CLIP = 6.0
_LEAST_RATE = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Train one order; lay two trained ones side by side, each normalised, for both.

    An edge is drawn in proportion to its weight, in either direction, and then counts 1. Its source is pulled to its
    target and pushed from ``negatives`` nodes drawn by ``degree^0.75``. Cost is ``samples``, whatever the graph's size.

    Attributes:
        embedding_dim: Width.
        order: 1: vertex against vertex; 2: vertex against the context vector of the target.
        samples: Edges drawn, in all.
        negatives: Nodes drawn against each.
        learning_rate: At the start; it falls in a straight line to a ten-thousandth.
        batch_size: Edges that move together (the paper's threads move one each, unsynchronised); small beside the graph.
        seed: Of fresh vectors and all draws.

    Raises:
        ConfigError: a number is out of range.
        TrainingError: the vectors grew without bound.

    Reference:
        Tang et al., LINE, WWW 2015. Differs: batches instead of threads that race; low-degree nodes are not given
        two-hop neighbours.

    >>> users, items = Line(embedding_dim=4, samples=100)(InteractionGraph.of([0, 1], [0, 1]))
    >>> users.shape, items.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    embedding_dim: int = 64
    order: Literal[1, 2] = 2
    samples: int = 10_000_000
    negatives: int = 5
    learning_rate: float = 0.025
    batch_size: int = 256
    seed: int = 0

    def __call__(self, graph: InteractionGraph) -> tuple[Tensor, Tensor]:
        """Return users ``[U, D]`` and items ``[I, D]``."""
        for name in ("embedding_dim", "samples", "negatives", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected at least 1")
        if self.order not in (1, 2):
            raise ConfigError(f"order = {self.order}: expected 1 or 2")
        random = np.random.default_rng(self.seed)
        edges = graph.edges
        pairs = AliasSampler(np.ones(len(edges)) if edges.weights is None else edges.weights)
        noise = AliasSampler(degree_sums(edges).numpy() ** 0.75)
        rows, columns = edges.rows, edges.neighbours
        vertices = (torch.from_numpy(random.random((graph.num_nodes, self.embedding_dim))).float() - 0.5) / (
            self.embedding_dim
        )
        contexts = vertices if self.order == 1 else torch.zeros_like(vertices)
        for done in range(0, self.samples, self.batch_size):
            drawn = pairs.draw(min(self.batch_size, self.samples - done), random)
            ends = np.stack([rows[drawn].astype(np.int64), columns[drawn].astype(np.int64) + graph.num_users])
            turned = random.random(len(drawn)) < 0.5
            sources, targets = np.where(turned, ends[::-1], ends)
            others = noise.draw(len(drawn) * self.negatives, random).reshape(len(drawn), -1)
            rate = self.learning_rate * max(1 - done / self.samples, _LEAST_RATE)
            _step(
                vertices,
                contexts,
                torch.from_numpy(sources),
                torch.from_numpy(np.column_stack([targets, others])),
                rate,
            )
        if not bool(vertices.isfinite().all()):
            raise TrainingError(
                f"the vectors grew without bound: batches of {self.batch_size} move one node many times at once; "
                "lower batch_size or learning_rate"
            )
        return vertices[: graph.num_users], vertices[graph.num_users :]


def edge_gradient(source: Tensor, targets: Tensor) -> Tensor:
    """Return ``label - sigmoid(score)``, the pull on each pair; the first target is the edge's, the others are noise.

    Scores are clipped at 6, as in the authors' code.

    Shapes:
        source: ``[B, D]``; targets: ``[B, 1 + n, D]``. Returns ``[B, 1 + n]``.
    """
    scores = torch.einsum("bd,bnd->bn", source, targets).clamp(-_CLIP, _CLIP)
    pull = -torch.sigmoid(scores)
    pull[:, 0] += 1
    return pull


def _step(vertices: Tensor, contexts: Tensor, sources: Tensor, targets: Tensor, rate: float) -> None:
    source, target = vertices[sources], contexts[targets]  # [B, D], [B, 1 + n, D]
    pull = edge_gradient(source, target)
    pull[:, 1:] *= targets[:, 1:] != targets[:, :1]  # noise that hit the target itself
    to_source = torch.einsum("bn,bnd->bd", pull, target)
    contexts.index_add_(0, targets.flatten(), (pull[..., None] * source[:, None]).flatten(0, 1), alpha=rate)
    vertices.index_add_(0, sources, to_source, alpha=rate)


def side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Return the two orders, each row normalised, as one vector per node."""
    return torch.cat([F.normalize(first, dim=1), F.normalize(second, dim=1)], dim=1)
