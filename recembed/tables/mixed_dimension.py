"""``mixed_dimension``: wide rows for popular ids, narrow rows for rare ones, projected to one width.

Ginart et al., Mixed Dimension Embeddings with Application to Memory-Efficient Recommendation Systems, ISIT 2021.
One power rule sizes fields and the popularity blocks within them. Differs from the paper: a budget counts the
projections and the rounding; a block that a projection would not shrink keeps full width; projections start with
standard deviation ``1 / sqrt(d)`` and rows as plain rows do, so vectors have the scale of plain rows (paper: Xavier).
Axes: ``d`` width of a block, ``D`` width of the vectors.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.rows import RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.hashed_weights import weights_of_one
from recembed.tables.parameters import uniform_parameter
from recembed.tables.popularity import PopularityRank, popularity_order
from recembed.tables.spec import TableSpec

__all__ = ["MixedDimensionConfig", "MixedDimensionTable"]


@dataclass(frozen=True, slots=True)
class _Block:
    """So many ids next to each other in popularity, each with ``popularity`` of the feature's occurrences."""

    ids: int
    popularity: float


@dataclass(frozen=True, slots=True)
class _Field:
    spec: TableSpec
    order: np.ndarray | None
    blocks: tuple[_Block, ...]

    def words(self, widths: Sequence[int]) -> int:
        """Return the 4-byte words of blocks of these widths: rows, reserved rows, projections and ranks."""
        full, sizes = self.spec.embedding_dim, self.merge(widths)
        reserved = len(sizes) > 1
        total = sum((ids + reserved) * d + (d * full if d < full else 0) for ids, d in sizes)
        if self.order is None or not reserved or (np.diff(self.order) == 1).all():
            return total
        return total + len(self.order)

    def merge(self, widths: Sequence[int]) -> list[tuple[int, int]]:
        """Return ids and width of each block after neighbours of one width became one."""
        pairs = itertools.groupby(zip(self.blocks, widths, strict=True), key=lambda pair: pair[1])
        return [(sum(block.ids for block, _ in group), width) for width, group in pairs]


class MixedDimensionConfig(TableConfig):
    """Width of a block ``d = scale * popularity ** temperature``, clipped to ``1 .. embedding_dim``, rounded, snapped.

    The popularity of a block is its share of the feature's training occurrences divided by its ids; with one block
    per feature it is ``1 / ids``, the rule across fields. Without ``ratio`` the most popular block is
    ``embedding_dim`` wide; with it ``scale`` is the largest whose bytes are within it. Bytes of a feature:
    ``4 * sum(ids * d + (d * D where d < D))``; where it has several blocks also a row per block, and 4 bytes per id
    if its vocabulary has grown (``PopularityRank``). An id costs one lookup per block of its feature. First-order
    weights are one number wide already: they keep exact tables, or under a ``ratio`` below a quarter hashed ones of
    four times that share.

    Attributes:
        temperature: 0 makes all widths equal; 1 makes them proportional to popularity.
        ratio: Bytes of all features of this method as a share of their exact tables'.
        blocks: Popularity blocks per feature, each with an equal share of the training occurrences; neighbours that
            round to one width become one block.
        power_of_two: Snap rounded widths to the nearest power of two, in logarithms (3 to 4).
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: no widths meet ``ratio``; ``blocks`` above 1 for a feature without counts; no vocabulary.

    >>> specs = [TableSpec("user", 100_000, 16), TableSpec("city", 1000, 16)]
    >>> tables = MixedDimensionConfig(temperature=0.3).build(specs, seed=0)
    >>> [tables[name].slots[0].embedding_dim for name in ("user", "city")]
    [4, 16]
    """

    kind: Literal["mixed_dimension"] = "mixed_dimension"
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.3
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    blocks: Annotated[int, Field(ge=1, le=16)] = 1
    power_of_two: bool = True
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Size the blocks of all features together, then build one table per spec."""
        if specs[0].linear:
            return {spec.name: weights_of_one(spec, self.ratio, self.exact_below, seed) for spec in specs}
        fields = [self._field(s) for s in specs if s.known_ids(self.kind) > self.exact_below]
        tables: dict[str, Table] = {spec.name: FullTable.of(spec) for spec in specs}
        if not fields:
            return tables
        exact = sum(table.slots[0].bytes // 4 for table in tables.values())
        small = exact - sum(field.spec.known_ids(self.kind) * field.spec.embedding_dim for field in fields)
        scale = self._scale(fields, small, exact)
        for field in fields:
            tables[field.spec.name] = _build_one(field, self._widths(field, scale), seed)
        return tables

    def _field(self, spec: TableSpec) -> _Field:
        ids = spec.known_ids(self.kind)
        if self.blocks == 1:
            return _Field(spec, None, (_Block(ids, 1 / ids),))
        order = popularity_order(spec, self.kind)
        counts = np.zeros(ids) if spec.counts is None else spec.counts[order]
        total = max(counts.sum(), 1)
        shares = np.arange(1, self.blocks) / self.blocks * total
        ends = np.unique(np.append(np.searchsorted(np.cumsum(counts), shares) + 1, ids).clip(max=ids))
        starts = np.append(0, ends[:-1])
        blocks = tuple(
            _Block(int(end - start), float(max(counts[start:end].sum(), 0.5) / total / (end - start)))
            for start, end in zip(starts, ends, strict=True)
        )
        return _Field(spec, order, blocks)

    def _widths(self, field: _Field, scale: float) -> list[int]:
        """Return the width of each block of a field; a block that a projection would not shrink is full."""
        full, widths = field.spec.embedding_dim, []
        for block in field.blocks:
            width = max(1, round(min(scale * block.popularity**self.temperature, full)))
            if self.power_of_two:
                width = min(1 << round(math.log2(width)), full)
            widths.append(full if block.ids * width + width * full >= block.ids * full else width)
        return widths

    def _scale(self, fields: Sequence[_Field], small: int, exact: int) -> float:
        popularities = [block.popularity**self.temperature for field in fields for block in field.blocks]
        full = fields[0].spec.embedding_dim
        if self.ratio is None:
            return float(full / max(popularities))
        needed = exact
        for scale in self._steps(popularities, full):
            needed = small + sum(field.words(self._widths(field, scale)) for field in fields)
            if needed <= self.ratio * exact:
                return scale
        raise ConfigError(
            f"table 'mixed_dimension': ratio = {self.ratio}: the smallest widths take {needed / exact:.4f} of the exact "
            "tables' bytes; raise ratio to that, or lower exact_below so that fewer features are exact"
        )

    @staticmethod
    def _steps(popularities: Iterable[float], full: int) -> list[float]:
        """Return, falling, one scale of every interval on which no width changes."""
        steps = {(width + 0.5) / p * (1 + 1e-9) for width in range(1, full) for p in popularities}
        return sorted(steps | {1e-9}, reverse=True)


def _build_one(field: _Field, widths: Sequence[int], seed: int) -> Table:
    spec, sizes = field.spec, field.merge(widths)
    if len(sizes) == 1 and sizes[0][1] == spec.embedding_dim:
        return FullTable.of(spec)
    projections = [
        uniform_parameter((d, spec.embedding_dim), d**-0.5, spec.name, i, seed) if d < spec.embedding_dim else None
        for i, (_, d) in enumerate(sizes)
    ]
    if len(sizes) == 1:
        rows = RowTable(spec.table_name(), sizes[0][0], sizes[0][1], spec.init)
        return MixedDimensionTable([rows], projections, None, spec.embedding_dim)
    slots = [RowTable(f"{spec.table_name()}.block_{i}", ids + 1, d, spec.init) for i, (ids, d) in enumerate(sizes)]
    order = np.arange(spec.known_ids("mixed_dimension")) if field.order is None else field.order
    return MixedDimensionTable(slots, projections, PopularityRank(order), spec.embedding_dim)


class MixedDimensionTable(Table):
    """Address: the place of the id in its block. Decode: projection of the block's row.

    An id belongs to one block. From the others it fetches row 0, which no id owns and whose gradient is zero.

    Args:
        slots: The rows of each block, most popular first.
        projections: ``[d, D]`` per block, None where ``d = D``.
        rank: Rank of an id among all blocks; None where there is one block.
        embedding_dim: ``D``.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    def __init__(
        self,
        slots: Sequence[RowTable],
        projections: Sequence[nn.Parameter | None],
        rank: PopularityRank | None,
        embedding_dim: int,
    ) -> None:
        super().__init__(slots, embedding_dim)
        self.rank = rank
        ends = list(itertools.accumulate(slot.num_embeddings - 1 for slot in slots))
        self.bounds = tuple(zip([0, *ends[:-1]], ends, strict=True))
        for i, projection in enumerate(projections):
            self.register_parameter(f"projection_{i}", projection)

    def address(self, ids: Tensor) -> Tensor:
        """Return the id's row in its block, and row 0 of the others."""
        if self.rank is None:
            return ids.unsqueeze(-1)
        rank = self.rank(ids)  # [*S]
        places = [torch.where(_within(rank, start, end), rank - start + 1, 0) for start, end in self.bounds]
        return torch.stack(places, dim=-1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Project the row of the id's own block."""
        if self.rank is None:
            return self._project(0, rows[0])
        rank = self.rank(ids).unsqueeze(-1)  # [*S, 1]
        parts = [
            self._project(i, torch.where(_within(rank, start, end), rows[i], 0.0))
            for i, (start, end) in enumerate(self.bounds)
        ]
        return torch.stack(parts).sum(0)

    def _project(self, block: int, rows: Tensor) -> Tensor:
        projection = self._parameters[f"projection_{block}"]
        return rows if projection is None else rows @ projection


def _within(rank: Tensor, start: int, end: int) -> Tensor:
    return (rank >= start) & (rank < end)
