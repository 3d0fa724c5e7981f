"""``hashed``: the hashing trick, one or several probes per id (Weinberger et al., ICML 2009)."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.errors import ConfigError
from recembed.hashing import MISSING_KEY, hash_rows, salt
from recembed.rows import RowTable
from recembed.tables.base import Table, TableConfig, Together
from recembed.tables.columns import may_miss, take_columns
from recembed.tables.full import FullTable
from recembed.tables.spec import TableSpec

__all__ = ["Combine", "HashedConfig", "HashedTable", "probe_width"]

Combine = Literal["concat", "sum", "mean"]


class HashedConfig(TableConfig):
    """A smaller table per feature, addressed by hash; a feature it would not shrink keeps its exact table.

    Published baselines ("split" hashing in Unified Embedding) hash every feature, also those of a few ids and also at
    the bytes of the exact tables, and so collide everywhere: ``keep_exact: false`` is that baseline.

    Attributes:
        num_embeddings: Rows per feature; if None, ``ratio`` of the vocabulary.
        ratio: Rows as a share of the vocabulary's.
        probes: Rows fetched per id, each by a hash of its own.
        combine: ``sum`` or ``mean`` of the probes (fewer full collisions), or ``concat`` of rows that are
            ``embedding_dim / probes`` wide.
        keep_exact: Keep exact tables where hashing would not shrink; False hashes every feature, with at least one
            row beside that of missing values.

    Raises:
        ConfigError: ``probes`` does not divide ``embedding_dim`` under ``concat``; no size for a feature
            without a vocabulary.
    """

    kind: Literal["hashed"] = "hashed"
    sized_by: ClassVar[str] = "num_embeddings"
    num_embeddings: Annotated[int, Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    probes: Annotated[int, Field(ge=1, le=64)] = 1
    combine: Combine = "concat"
    keep_exact: bool = True

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec: one reserved row for missing values, the rest hash buckets."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        combine, width = probe_width(spec, self.probes, self.combine)
        if not self._hashes(spec):
            return FullTable.of(spec)
        table = RowTable(spec.table_name(), self._rows(spec, spec.embedding_dim, width), width, spec.init)
        salts = [salt(spec.name, probe, seed) for probe in range(self.probes)]
        return HashedTable(table, salts, first=1, missing=[0] * self.probes, combine=combine)

    def _rows(self, spec: TableSpec, embedding_dim: int, width: int) -> int:
        if self.num_embeddings is not None:
            return max(self.num_embeddings, 2)
        return max(2, int((self.ratio or 0.25) * spec.known_ids("hashed") * embedding_dim / width))

    def _hashes(self, spec: TableSpec) -> bool:
        """Decide by the feature's vectors, for its first-order weights too: both must read keys, or both ids."""
        if spec.num_embeddings is None or not self.keep_exact:
            return True
        dim = spec.vector_dim or spec.embedding_dim
        width = dim // self.probes if self.combine == "concat" else dim
        return self._rows(spec, dim, width) * width < spec.num_embeddings * dim


def probe_width(spec: TableSpec, probes: int, combine: Combine) -> tuple[Combine, int]:
    """Return how ``probes`` rows combine into ``embedding_dim`` numbers and how wide each row is.

    First-order weights (width 1) cannot be cut into probes: they are summed.
    """
    if spec.linear and combine == "concat":
        return "sum", spec.embedding_dim
    if combine != "concat":
        return combine, spec.embedding_dim
    if spec.embedding_dim % probes:
        raise ConfigError(
            f"feature {spec.name!r}: probes = {probes} does not divide embedding_dim = {spec.embedding_dim}; "
            "change one of them, or set combine to 'sum'"
        )
    return combine, spec.embedding_dim // probes


class HashedTable(Table):
    """``P`` rows per key: slot ``j`` reads row ``first + hash(key ^ salt_j)``; a missing value has rows of its own.

    Args:
        table: The rows, possibly shared with other features.
        salts: One int64 per probe.
        first: First row the hash may reach; the rows before it are reserved.
        missing: Reserved row of the missing value, one per probe.
        combine: How the probes become one vector.

    Shapes:
        ids: int64 keys ``[*S]``; vectors: float32 ``[*S, D]`` with ``D = probes * width`` under ``concat``.
    """

    reads: Literal["ids", "keys"] = "keys"

    def __init__(
        self, table: RowTable, salts: Sequence[int], *, first: int, missing: Sequence[int], combine: Combine
    ) -> None:
        probes = len(salts)
        super().__init__([table] * probes, table.embedding_dim * (probes if combine == "concat" else 1))
        self.addressed_by = (tuple(salts), first, table.num_embeddings, tuple(missing))
        self.first_bucket = first
        self.buckets = table.num_embeddings - first
        self.combine = combine
        self.concat = combine == "concat" or probes == 1
        self.additive = combine == "sum" or probes == 1
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64))
        self.register_buffer("missing", torch.tensor(missing, dtype=torch.int64), persistent=False)

    def address(self, ids: Tensor) -> Tensor:
        """Return the row of each probe."""
        keys = ids.unsqueeze(-1)  # [*S, 1]
        rows = hash_rows(keys, self.get_buffer("salts"), self.buckets, self.first_bucket)  # [*S, P]
        return torch.where(keys == MISSING_KEY, self.get_buffer("missing"), rows)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Concatenate, add or average the probes."""
        if len(rows) == 1:
            return rows[0]
        if self.combine == "concat":
            return torch.cat(list(rows), dim=-1)
        total = torch.stack(list(rows)).sum(0)
        return total if self.combine == "sum" else total / len(rows)

    @classmethod
    def together(cls, tables: Sequence[Table]) -> Together:
        """Return a module that hashes all features in one step."""
        return _HashedTogether([table for table in tables if isinstance(table, HashedTable)])


class _HashedTogether(Together):
    def __init__(self, tables: Sequence[HashedTable]) -> None:
        super().__init__(tables)
        probes = [len(table.slots) for table in tables]
        column = [i for i, count in enumerate(probes) for _ in range(count)]
        self._probes = probes[0] if len(set(probes)) == 1 else 0
        self._combine = tables[0].combine if len({table.combine for table in tables}) == 1 else None
        self._one_each = probes == [1] * len(tables)
        self._addressed_by = [table.addressed_by for table in tables]
        buckets = torch.tensor([tables[i].buckets for i in column])
        starts = torch.tensor([tables[i].first_bucket for i in column])
        self.register_buffer("column", torch.tensor(column), persistent=False)
        self.register_buffer("missing", torch.cat([t.get_buffer("missing") for t in tables]), persistent=False)
        self.register_buffer("buckets", buckets, persistent=False)
        self.register_buffer("starts", starts, persistent=False)

    def address(self, ids: Tensor) -> Tensor:
        keys = ids if self._one_each else take_columns(ids, self.get_buffer("column"))  # [B, slots]
        salts = torch.cat([table.get_buffer("salts") for table in self._tables])  # they may have been loaded since
        rows = hash_rows(keys, salts, self.get_buffer("buckets"), self.get_buffer("starts"))
        return torch.where(keys == MISSING_KEY, self.get_buffer("missing"), rows) if may_miss(keys) else rows

    def addresses_like(self, other: Together) -> bool:
        """Tell whether salts, buckets and reserved rows are the same; a checkpoint's salts come for both or for none."""
        return isinstance(other, _HashedTogether) and self._addressed_by == other._addressed_by

    def decode(self, rows: dict[int, Tensor], ids: Tensor) -> Tensor:
        if self.concat or not self._probes or self._combine is None or len(self.widths) > 1:
            return super().decode(rows, ids)
        fetched = rows[self.widths[0]]
        fetched = fetched.view(-1, len(self.tables), self._probes, self.widths[0])  # [B, n, P, d]
        return (fetched.sum(2) if self._combine == "sum" else fetched.mean(2)).flatten(1)
