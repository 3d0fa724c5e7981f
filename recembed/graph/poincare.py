"""Poincaré embeddings: hierarchies (categories, taxonomies) in hyperbolic space, where trees have room.

Axes: ``n`` concepts, ``D`` width, ``B`` relations of a step, ``m`` negatives.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recembed.errors import ConfigError, DataError

__all__ = ["Poincare", "nearest_in_ball", "poincare_distance"]

_EDGE = 1e-5


def poincare_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return ``arcosh(1 + 2‖a - b‖² / ((1 - ‖a‖²)(1 - ‖b‖²)))`` over the last axis, float64.

    >>> poincare_distance(torch.zeros(2), torch.tensor([0.5, 0.0])).item()  # 2 artanh(1/2) = log 3
    1.0986...
    """
    a, b = a.double(), b.double()
    x = 2 * _gap(a, b)  # arcosh(1 + x) = log(1 + x + sqrt(x (x + 2))), exact near 0
    return torch.log1p(x + (x * (x + 2)).clamp(min=1e-24).sqrt()) * (x > 0)


def nearest_in_ball(query: Tensor, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return distances and numbers of the ``count`` points nearest to each query, both ``[B, count]``.

    Inner-product indexes do not apply here; points are ranked by ``‖a - b‖² / (1 - ‖b‖²)``, which grows with the
    distance.

    Shapes:
        query: ``[B, D]``; points: ``[n, D]``.
    """
    a, b = query.double(), points.double()
    square = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    order = (square / (1 - b.square().sum(1))).argsort(dim=1, stable=True)[:, :count]
    return poincare_distance(a[:, None], b[order]), order


def _gap(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(-1) / ((1 - a.square().sum(-1)) * (1 - b.square().sum(-1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Poincare:
    """Train vectors of concepts so that each is nearer to its parents than to sampled others.

    The loss is the softmax of negative distances over a true pair and ``negatives`` random concepts that are not
    related to the first; the step is Riemannian gradient descent with the exact conformal factor, float64 throughout.

    Attributes:
        embedding_dim: Width; 5 to 10 are plenty.
        epochs: Times that all relations are read.
        burn_in: First epochs at a tenth of the rate.
        learning_rate: Of Riemannian gradient descent.
        negatives: Concepts drawn against each relation.
        batch_size: Relations of a step.
        seed: Of fresh vectors, order and draws.

    Raises:
        ConfigError: a number is out of range.

    Reference:
        Nickel & Kiela, Poincaré Embeddings for Learning Hierarchical Representations, NeurIPS 2017.
    """

    embedding_dim: int = 5
    epochs: int = 300
    burn_in: int = 20
    learning_rate: float = 0.3
    negatives: int = 10
    batch_size: int = 10
    seed: int = 0

    def __call__(self, relations: NDArray[np.integer], concepts: int) -> Tensor:
        """Return float64 ``[n, D]``, all within the unit ball.

        Args:
            relations: ``[R, 2]``: a concept and one above it; give all ancestors (the transitive closure), or parents.
            concepts: Number of concepts.

        Raises:
            DataError: a relation names a concept that is not there, or there is none.
        """
        if min(self.embedding_dim, self.epochs, self.negatives, self.batch_size) < 1 or self.learning_rate <= 0:
            raise ConfigError("embedding_dim, epochs, negatives, batch_size and learning_rate: expected above 0")
        pairs = np.asarray(relations, np.int64)
        if pairs.ndim != 2 or not len(pairs) or pairs.min() < 0 or pairs.max() >= concepts:
            raise DataError(f"relations: expected pairs of concepts 0..{concepts - 1}, at least one of them")
        random = np.random.default_rng(self.seed)
        points = torch.from_numpy(random.uniform(-1e-3, 1e-3, (concepts, self.embedding_dim)))
        related = np.unique(np.concatenate([pairs @ [concepts, 1], np.arange(concepts) * (concepts + 1)]))
        for epoch in range(self.epochs):
            rate = self.learning_rate * (0.1 if epoch < self.burn_in else 1.0)
            order = random.permutation(len(pairs))
            for start in range(0, len(order), self.batch_size):
                own, above = pairs[order[start : start + self.batch_size]].T
                others = random.integers(0, concepts, (len(own), self.negatives))
                banned = np.isin(own[:, None] * concepts + others, related)
                step(points, torch.from_numpy(own), torch.from_numpy(np.column_stack([above, others])), banned, rate)
        return points


def step(points: Tensor, own: Tensor, others: Tensor, banned: NDArray[np.bool_], rate: float) -> Tensor:
    """Move ``points`` by one Riemannian step, in place, and return the loss.

    Shapes:
        points: float64 ``[n, D]``; own: ``[B]``; others: ``[B, 1 + m]``, the true one first; banned: ``[B, m]``.
    """
    rows, places = torch.unique(torch.cat([own[:, None], others], dim=1), return_inverse=True)
    moved = points[rows].requires_grad_()
    read = moved[places]  # [B, 2 + m, D]
    scores = -poincare_distance(read[:, :1], read[:, 1:])
    scores = torch.cat([scores[:, :1], scores[:, 1:].masked_fill(torch.from_numpy(banned), -torch.inf)], dim=1)
    loss = -(scores[:, 0] - scores.logsumexp(1)).sum()
    (gradient,) = torch.autograd.grad(loss, moved)
    with torch.no_grad():
        factor = (1 - moved.square().sum(1, keepdim=True)).square() / 4
        fresh = moved - rate * factor * gradient
        norm = fresh.norm(dim=1, keepdim=True)
        points[rows] = torch.where(norm > 1 - _EDGE, fresh / norm * (1 - _EDGE), fresh)
    return loss.detach()
