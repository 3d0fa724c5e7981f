"""First-order weights of the methods whose own form is no use at width 1: a small hashed table."""

from recembed.hashing import salt
from recembed.rows import RowTable
from recembed.tables.base import Table
from recembed.tables.full import FullTable
from recembed.tables.hashed import HashedTable
from recembed.tables.spec import TableSpec

__all__ = ["hashed_weights", "weights_of_one"]

_GENEROUS = 4


def hashed_weights(spec: TableSpec, rows: int, seed: int) -> Table:
    """Return ``rows`` rows that the feature's ids share by hash, or the exact table where that is no larger.

    Ids of a vocabulary are hashed as ids, not as raw keys: the vectors of the feature read ids too.

    >>> table = hashed_weights(TableSpec("item", 1000, 1, linear=True), 50, seed=0)
    >>> table.reads, table.slots[0].num_embeddings, table.additive
    ('ids', 50, True)
    """
    if spec.num_embeddings is not None and rows >= spec.num_embeddings:
        return FullTable.of(spec)
    slot = RowTable(spec.table_name(), max(rows, 2), spec.embedding_dim, spec.init)
    table = HashedTable(slot, [salt(spec.name, 0, seed)], first=1, missing=[0], combine="sum")
    table.reads = "keys" if spec.num_embeddings is None else "ids"
    return table


def weights_of_one(spec: TableSpec, ratio: float | None, exact_below: int, seed: int) -> Table:
    """Return first-order weights of a method that narrows rows, which one number cannot be.

    They are a small part of the bytes: exact without a ``ratio``, for few ids and down to a ratio of a quarter; below
    that a hashed table of four times the ratio's rows.

    >>> spec = TableSpec("item", 1000, 1, linear=True)
    >>> [weights_of_one(spec, ratio, 100, 0).slots[0].num_embeddings for ratio in (None, 0.3, 0.05)]
    [1000, 1000, 200]
    """
    ids = spec.known_ids("full")
    if ratio is None or ids <= exact_below:
        return FullTable.of(spec)
    return hashed_weights(spec, int(min(1.0, _GENEROUS * ratio) * ids), seed)
