"""``Shard``: a part of a table on one process, and its bytes."""

from collections.abc import Iterable
from dataclasses import dataclass

from recembed.rows.optimizers import RowOptimizer
from recembed.rows.row_table import Part, RowTable

__all__ = ["Shard", "readable", "shard_bytes", "table_bytes"]


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a table on one process.

    Attributes:
        rank: The process.
        rows, columns: The part.
        copy: Every process holds it.
    """

    rank: int
    rows: range
    columns: range
    copy: bool = False

    def table(self, whole: RowTable) -> RowTable:
        """Return the part as a table of its own, with the fresh rows it has in the whole."""
        part = Part(whole.name, whole.num_embeddings, whole.embedding_dim, self.rows.start, self.columns.start)
        name = f"{whole.name}[{self.rows.start}:{self.rows.stop}, {self.columns.start}:{self.columns.stop}]"
        return RowTable(name, len(self.rows), len(self.columns), whole.init, part, whole.dtype)


def shard_bytes(shard: Shard, table: RowTable, optimizer: RowOptimizer | None) -> int:
    """Return the bytes of a part of ``table`` with its optimiser states, which are float32."""
    width = len(shard.columns)
    states = sum(optimizer.state_width(state, width) for state in optimizer.states) if optimizer else 0
    return shard.table(table).bytes + 4 * len(shard.rows) * states


def table_bytes(tables: Iterable[RowTable], optimizer: RowOptimizer | None) -> int:
    """Return the bytes of whole tables with their optimiser states; a table that stands there twice counts once."""
    whole = ((Shard(0, range(t.num_embeddings), range(t.embedding_dim)), t) for t in dict.fromkeys(tables))
    return sum(shard_bytes(shard, table, optimizer) for shard, table in whole)


def readable(size: float) -> str:
    """Return a number of bytes for people.

    >>> readable(1536), readable(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    for unit in units[:-1]:
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {units[-1]}"
