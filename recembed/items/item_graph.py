"""``ItemGraph``: items joined to the items that are most like them in content; frozen.

Axes: ``I`` items, ``C`` width of a source, ``D`` width of what is propagated, ``k`` neighbours, ``E`` edges.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.graph.edges import Edges
from recembed.items.source_vectors import SourceVectors

__all__ = ["ItemGraph", "nearest_items"]

_CELLS = 1 << 24  # cosines held at once
_STEPS = 2.0**30  # of a cosine; equal vectors come out equal in spite of rounding
_REMEMBERED: dict[tuple[bytes, int], Tensor] = {}  # the refit of a run, and the next run, ask for the same neighbours
_MOST_REMEMBERED = 4


def nearest_items(vectors: Tensor, k: int, *, cells: int = _CELLS) -> Tensor:
    """Return the ``k`` other items of highest cosine, best first and equal ones in the order of their numbers.

    Exact, by blocks of rows: ``cells`` cosines are held at once, never ``I × I``.

    Shapes:
        vectors: ``[I, C]``. Returns int64 ``[I, k]``.

    Raises:
        ConfigError: fewer than ``k`` others.

    >>> nearest_items(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [3.0, 0.0]]), 2).tolist()
    [[3, 2], [2, 0], [0, 3], [0, 2]]
    """
    count = len(vectors)
    if not 1 <= k < count:
        raise ConfigError(f"neighbours = {k}: expected 1..{count - 1}, the other items that have a vector")
    units = F.normalize(vectors.double(), dim=1)  # [I, C]
    later = torch.arange(count - 1, -1, -1)  # [I], more for a lower number
    found, block = [], max(1, cells // count)
    for start in range(0, count, block):
        cosines = units[start : start + block] @ units.T  # [b, I]
        keys = (cosines * _STEPS).round().long() * 2**32 + later  # no two of a row are equal
        keys[torch.arange(len(keys)), torch.arange(start, start + len(keys))] = torch.iinfo(torch.int64).min
        found.append(keys.topk(k, dim=1).indices)
    return torch.cat(found)


class ItemGraph(nn.Module):
    """The matrix ``S``: row ``i`` holds the items nearest to item ``i`` in each source, ``weight / k`` each.

    The weights of a row sum up to 1, shared among the sources that know the item; an item that no source knows has an
    empty row. Nothing in it is learned, and no gradient goes into it.

    Args:
        sources: ``SourceVectors`` by name.
        neighbours: Of an item in each source, itself left out.
        weights: Of the sources; None weighs them alike.

    Shapes:
        forward: float32 ``[I, D]`` to ``[I, D]``, ``S @ vectors``.

    Raises:
        ConfigError: too many neighbours, or weights that do not fit the sources.
    """

    def __init__(self, sources: nn.ModuleDict, neighbours: int, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        shares = _shares(list(sources), weights)
        edges = _edges(sources, neighbours, shares)
        transposed, _ = edges.transposed()
        for name, rows in (("", edges), ("back_", transposed)):
            assert rows.weights is not None
            self.register_buffer(f"{name}pointers", torch.from_numpy(rows.pointers), persistent=False)
            self.register_buffer(f"{name}neighbours", torch.from_numpy(rows.neighbours).long(), persistent=False)
            self.register_buffer(f"{name}weights", torch.from_numpy(rows.weights), persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return ``S @ vectors``."""
        matrix = [self.get_buffer(name) for name in ("pointers", "neighbours", "weights")]
        transposed = [self.get_buffer(f"back_{name}") for name in ("pointers", "neighbours", "weights")]
        product: Tensor = _Product.apply(vectors, *matrix, *transposed)  # type: ignore[no-untyped-call]
        return product


def _shares(names: list[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    if weights is None:
        return dict.fromkeys(names, 1.0)
    if sorted(weights) != sorted(names):
        raise ConfigError(f"weights of {sorted(weights)}: expected one for each source, {sorted(names)}")
    if any(weight < 0 for weight in weights.values()) or not sum(weights.values()):
        raise ConfigError(f"weights = {dict(weights)}: expected numbers of at least 0, one of them above")
    return dict(weights)


def _nearest(vectors: Tensor, k: int) -> Tensor:
    """Return ``nearest_items``, remembered for the last few matrices of this process."""
    key = (hashlib.blake2b(vectors.contiguous().numpy().data, digest_size=16).digest(), k)
    if key not in _REMEMBERED:
        while len(_REMEMBERED) >= _MOST_REMEMBERED:
            del _REMEMBERED[next(iter(_REMEMBERED))]
        _REMEMBERED[key] = nearest_items(vectors, k)
    return _REMEMBERED[key]


def _edges(sources: nn.ModuleDict, neighbours: int, shares: Mapping[str, float]) -> Edges:
    rows, columns, values, totals = [], [], [], []
    for name, source in sources.items():
        if not shares[name]:
            continue
        assert isinstance(source, SourceVectors)
        own = torch.nonzero(source.present).flatten()
        with torch.no_grad():
            near = own[_nearest(source(own), neighbours)]  # [i, k]
        rows.append(own.repeat_interleave(neighbours).numpy())
        columns.append(near.flatten().numpy())
        values.append(np.full(near.numel(), shares[name] / neighbours))
        totals.append(shares[name] * source.present.double().numpy())
    row, value, total = np.concatenate(rows), np.concatenate(values), np.sum(totals, axis=0)
    return Edges.of(row, np.concatenate(columns), value / total[row], (len(total), len(total)), "sum")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, *matrix: Tensor) -> Tensor:
        ctx.save_for_backward(*matrix[3:])
        return _bags(vectors, *matrix[:3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _bags(gradients[0].contiguous(), *ctx.saved_tensors), *[None] * 6


def _bags(vectors: Tensor, pointers: Tensor, neighbours: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(
        neighbours, vectors, pointers, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
