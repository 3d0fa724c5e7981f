"""Complements: skip-gram with negative sampling over baskets, both matrices kept.

Kvernadze et al., Two Is Better Than One: Dual Embeddings for Complementary Product Recommendations, 2022. Every ordered
pair of distinct items of a basket is a sample. Items whose IN vectors are alike are similar; an item whose OUT vector
fits the IN vector of another completes it. Differs from the paper: pairs of a basket are not windowed, and synthetic
pairs go through the nearest neighbours in given content vectors.
Axes: ``N`` items, ``B`` pairs of a step, ``K`` negatives, ``D`` width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import ConfigError, DataError

__all__ = ["ComplementsConfig", "DualEmbeddings", "basket_pairs", "synthetic_pairs", "train_complements"]


class ComplementsConfig(BaseModel):
    """How both matrices are trained.

    Attributes:
        embedding_dim: Width.
        negatives: Per pair.
        negative_power: Negatives are drawn in proportion to ``count ** negative_power``; shops often want 0 or less.
        epochs: Over all pairs.
        batch_size: Pairs per step.
        learning_rate: Of Adagrad.
        seed: Fresh vectors, order and negatives depend on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    embedding_dim: Annotated[int, Field(ge=1)] = 32
    negatives: Annotated[int, Field(ge=1)] = 5
    negative_power: float = 0.5
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 1024
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    seed: int = 0


def basket_pairs(baskets: pl.DataFrame, basket: str, item: str) -> tuple[pl.Series, np.ndarray]:
    """Return the items of all baskets and every ordered pair of distinct items of a basket, as places.

    A basket of ``n`` distinct items gives ``n (n - 1)`` pairs, one of a single item none.

    Raises:
        DataError: no basket holds two items.

    >>> frame = pl.DataFrame({"basket": [1, 1, 1, 2], "item": ["a", "b", "a", "c"]})
    >>> items, pairs = basket_pairs(frame, "basket", "item")
    >>> items.to_list(), pairs.tolist()
    (['a', 'b', 'c'], [[0, 1], [1, 0]])
    """
    frame = baskets.select(pl.col(basket).alias("b"), pl.col(item).alias("i")).drop_nulls().unique(maintain_order=True)
    items = frame["i"].unique().sort().alias(item)
    places = pl.DataFrame({"i": items, "p": np.arange(len(items))})
    frame = frame.join(places, on="i", how="left", maintain_order="left").select("b", "p")
    pairs = frame.join(frame, on="b", how="inner", suffix="_other", maintain_order="left_right")
    found = pairs.filter(pl.col("p") != pl.col("p_other")).select("p", "p_other").to_numpy()
    if not len(found):
        raise DataError(f"no {basket!r} holds two items of {item!r}, so there are no pairs to learn from")
    return items, found


def synthetic_pairs(pairs: np.ndarray, content: np.ndarray, neighbours: int = 2) -> np.ndarray:
    """Return pairs ``(x', y)`` for every pair ``(x, y)`` and the items ``x'`` most like ``x`` by content.

    So items that were bought rarely, or never, get complements too. Items with a zero vector have no content and are
    neither given nor asked.

    Shapes:
        pairs: int64 ``[P, 2]``; content: floats ``[N, D]``. Returns int64 ``[<= P * neighbours, 2]``.
    """
    lengths = np.linalg.norm(content, axis=1)
    unit = content / np.where(lengths > 0, lengths, 1)[:, None]
    asked = np.unique(pairs[:, 0])
    asked = asked[lengths[asked] > 0]
    near = np.full((len(content), neighbours), -1)
    for place in asked:
        scores = unit @ unit[place]
        scores[lengths == 0] = -np.inf
        scores[place] = -np.inf
        best = np.argsort(-scores, kind="stable")[:neighbours]
        near[place, : len(best)] = np.where(np.isfinite(scores[best]), best, -1)
    queries = near[pairs[:, 0]].reshape(-1)
    targets = np.repeat(pairs[:, 1], neighbours)
    kept = (queries >= 0) & (queries != targets)
    found: np.ndarray = np.stack([queries[kept], targets[kept]], axis=1)
    return found


@dataclass(frozen=True, eq=False)
class DualEmbeddings:
    """Both matrices of the same items.

    Attributes:
        ids: Raw ids, ``N`` of them.
        inward: float32 ``[N, D]``, the query side (IN).
        outward: float32 ``[N, D]``, the answer side (OUT).
    """

    ids: pl.Series
    inward: np.ndarray
    outward: np.ndarray

    def similar(self, places: Sequence[int], k: int = 10) -> np.ndarray:
        """Return the ``k`` most similar items of each, int64 ``[n, k]``: the cosine of IN and IN."""
        return self._best(_unit(self.inward[list(places)]) @ _unit(self.inward).T, places, k)

    def complementary(self, places: Sequence[int], k: int = 10) -> np.ndarray:
        """Return the ``k`` items that complete each best, int64 ``[n, k]``: the product of IN and OUT."""
        return self._best(self.inward[list(places)] @ self.outward.T, places, k)

    def _best(self, scores: np.ndarray, places: Sequence[int], k: int) -> np.ndarray:
        if not 1 <= k < len(self.ids):
            raise ConfigError(f"k = {k}: expected 1..{len(self.ids) - 1} (other items)")
        scores[np.arange(len(scores)), list(places)] = -np.inf  # an item is no answer to itself
        best: np.ndarray = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return best

    def write(self, path: Path) -> None:
        """Write one Parquet file: raw id, ``in`` and ``out``, so that both sides have one version."""
        columns = [self.ids]
        for name, matrix in (("in", self.inward), ("out", self.outward)):
            columns.append(pl.Series(name, matrix, dtype=pl.Array(pl.Float32, matrix.shape[1])))
        beside = path.with_name(path.name + ".tmp")
        pl.DataFrame(columns).write_parquet(beside)
        beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> "DualEmbeddings":
        """Read what ``write`` wrote.

        Raises:
            DataError: the file does not hold both sides.
        """
        frame = pl.read_parquet(path)
        if not {"in", "out"} <= set(frame.columns):
            raise DataError(f"{path} does not hold both sides: expected columns 'in' and 'out', found {frame.columns}")
        return cls(frame.to_series(0), frame["in"].to_numpy(), frame["out"].to_numpy())


def _unit(matrix: np.ndarray) -> np.ndarray:
    unit: np.ndarray = matrix / np.linalg.norm(matrix, axis=1, keepdims=True).clip(min=1e-12)
    return unit


def train_complements(ids: pl.Series, pairs: np.ndarray, config: ComplementsConfig | None = None) -> DualEmbeddings:
    """Train both matrices; negatives that equal the query or its partner are not counted.

    The loss of a pair is ``-log s(in_i out_j) - sum_k log s(-in_i out_k)``.
    """
    config = config or ComplementsConfig()
    generator = torch.Generator().manual_seed(config.seed)
    count, width = len(ids), config.embedding_dim
    inward = ((torch.rand(count, width, generator=generator) - 0.5) / width).requires_grad_()
    outward = torch.zeros(count, width, requires_grad=True)
    optimizer = torch.optim.Adagrad([inward, outward], lr=config.learning_rate)
    samples = torch.from_numpy(np.ascontiguousarray(pairs, np.int64))
    counts = torch.bincount(samples[:, 1], minlength=count).double()
    law = torch.where(counts > 0, counts.clamp(min=1) ** config.negative_power, 0.0)
    for _ in range(config.epochs):
        order = torch.randperm(len(samples), generator=generator)
        for batch in torch.split(samples[order], config.batch_size):
            drawn = torch.multinomial(law, len(batch) * config.negatives, replacement=True, generator=generator)
            loss = pair_loss(inward, outward, batch, drawn.view(len(batch), -1))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return DualEmbeddings(ids, inward.detach().numpy(), outward.detach().numpy())


def pair_loss(inward: Tensor, outward: Tensor, pairs: Tensor, negatives: Tensor) -> Tensor:
    """Return the mean loss of pairs int64 ``[B, 2]`` with negatives int64 ``[B, K]``."""
    query, target = inward[pairs[:, 0]], outward[pairs[:, 1]]  # [B, D]
    away = torch.einsum("bd,bkd->bk", query, outward[negatives])  # [B, K]
    counted = (negatives != pairs[:, :1]) & (negatives != pairs[:, 1:])
    loss = F.softplus(-(query * target).sum(1)) + (F.softplus(away) * counted).sum(1)
    return loss.mean()
