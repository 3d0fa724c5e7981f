"""``full``: one row per id."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from recembed.rows import RowTable
from recembed.tables.base import Table, TableConfig, Together
from recembed.tables.spec import TableSpec

__all__ = ["FullConfig", "FullTable"]


class FullConfig(TableConfig):
    """One row per id of the vocabulary; bytes ``4 * num_embeddings * embedding_dim``.

    >>> table = FullConfig().build([TableSpec("item", 10, 4)], seed=0)["item"]
    >>> table.slots[0].num_embeddings, table.embedding_dim
    (10, 4)
    """

    kind: Literal["full"] = "full"

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec."""
        return {spec.name: FullTable.of(spec) for spec in specs}


class FullTable(Table):
    """Address: the id itself. Decode: nothing.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    concat = True
    additive = True

    @classmethod
    def of(cls, spec: TableSpec) -> "FullTable":
        """Build the exact table of a spec."""
        rows = RowTable(spec.table_name(), spec.known_ids("full"), spec.embedding_dim, spec.init)
        return cls([rows], spec.embedding_dim)

    def address(self, ids: Tensor) -> Tensor:
        """Return ``ids`` with a slot axis."""
        return ids.unsqueeze(-1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the one row of each id."""
        return rows[0]

    @classmethod
    def together(cls, tables: Sequence[Table]) -> Together:
        """Return a module whose addresses are the ids of the batch as they lie."""
        return _FullTogether(tables)


class _FullTogether(Together):
    def address(self, ids: Tensor) -> Tensor:
        return ids

    def addresses_like(self, other: Together) -> bool:
        return isinstance(other, _FullTogether)
