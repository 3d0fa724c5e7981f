"""``multiplexed``: one table for many features (Unified Embedding).

Coleman et al., Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML Systems, NeurIPS 2023.
Values of different features may share a row (their weights in the model tell them apart), so each feature has the
whole table to spread over. Differs from the paper's public layer: salts are keyed by feature name and probe, not by
the order of registration; missing values have reserved rows; tiny features keep exact tables.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from recembed.errors import ConfigError
from recembed.hashing import salt
from recembed.rows import RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.hashed import Combine, HashedTable, probe_width
from recembed.tables.spec import TableSpec

__all__ = ["MultiplexedConfig"]


class MultiplexedConfig(TableConfig):
    """One store of rows for all features that name it.

    Several stores with different ``row_dim`` are the paper's size classes; different ``probes`` per feature are
    its variable width: under ``concat`` a feature with ``k`` probes is ``k * row_dim`` wide.

    Attributes:
        store: Name of the shared rows.
        num_embeddings: Rows of the store; if None, so many that rows and exact tables together take ``ratio``.
        ratio: Bytes as a share of the exact tables' bytes.
        probes: Rows fetched per id, one number for all features or one by feature name (others 1).
        combine: ``concat``, ``sum`` or ``mean`` of the probes.
        row_dim: Width of a row; if None, ``embedding_dim``, divided by ``probes`` under ``concat``.
        exact_below: Features with at most this many ids keep an exact table of their own.

    >>> specs = [TableSpec("city", 1000, 8), TableSpec("shop", 3000, 8)]
    >>> tables = MultiplexedConfig(num_embeddings=500, probes=2).build(specs, seed=0)
    >>> tables["city"].slots[0] == tables["shop"].slots[1], tables["city"].embedding_dim
    (True, 8)
    """

    kind: Literal["multiplexed"] = "multiplexed"
    sized_by: ClassVar[str] = "num_embeddings"
    store: Annotated[str, Field(min_length=1)] = "multiplexed"
    num_embeddings: Annotated[int, Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    probes: Annotated[int, Field(ge=1, le=64)] | dict[str, Annotated[int, Field(ge=1, le=64)]] = 1
    combine: Combine = "concat"
    row_dim: Annotated[int, Field(ge=1)] | None = None
    exact_below: Annotated[int, Field(ge=0)] = 100

    @model_validator(mode="after")
    def _check(self) -> "MultiplexedConfig":
        if isinstance(self.probes, dict) and self.row_dim is None and self.combine == "concat":
            raise ValueError("probes by feature under 'concat' need row_dim: a feature is probes * row_dim wide")
        return self

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build all features over one row table; tiny ones exactly."""
        tiny = [s for s in specs if s.num_embeddings is not None and s.num_embeddings <= self.exact_below]
        shared = [spec for spec in specs if spec not in tiny]
        tables: dict[str, Table] = {spec.name: FullTable.of(spec) for spec in tiny}
        if not shared:
            return tables
        shapes = {spec.name: self._shape(spec) for spec in shared}
        width = max(width for _, _, width in shapes.values())
        reserved = sum(probes for probes, _, _ in shapes.values())
        rows = self._rows(specs, tiny, width)
        if rows <= reserved:
            raise ConfigError(
                f"table 'multiplexed', store {self.store!r}: {rows} rows, of which {reserved} are reserved for missing "
                f"values; raise num_embeddings or ratio to hold at least {reserved + 1} rows"
            )
        table = RowTable(shared[0].table_name(self.store), rows, width, shared[0].init)
        taken = 0
        for spec in shared:
            probes, combine, _ = shapes[spec.name]
            salts = [salt(spec.name, probe, seed) for probe in range(probes)]
            missing = range(taken, taken + probes)
            tables[spec.name] = HashedTable(table, salts, first=reserved, missing=missing, combine=combine)
            taken += probes
        return tables

    def _shape(self, spec: TableSpec) -> tuple[int, Combine, int]:
        probes = self.probes if isinstance(self.probes, int) else self.probes.get(spec.name, 1)
        if self.row_dim is not None and not spec.linear:
            if self.combine != "concat" and self.row_dim != spec.embedding_dim:
                raise ConfigError(
                    f"table 'multiplexed': row_dim = {self.row_dim} under combine = {self.combine!r} must equal "
                    f"embedding_dim = {spec.embedding_dim}"
                )
            return probes, self.combine, self.row_dim
        return probes, *probe_width(spec, probes, self.combine)

    def _rows(self, specs: Sequence[TableSpec], tiny: Sequence[TableSpec], width: int) -> int:
        if self.num_embeddings is not None:
            return self.num_embeddings
        exact = sum(spec.known_ids("multiplexed") * spec.embedding_dim for spec in specs)
        kept = sum(spec.known_ids("multiplexed") * spec.embedding_dim for spec in tiny)
        return int(((self.ratio or 0.25) * exact - kept) / width)
