"""Trained tables → the tables that are served, each in the form that takes the fewest bytes."""

from collections.abc import Mapping

import torch

from recembed.embedding.budget import own_bytes
from recembed.embedding.lookup import table_vectors
from recembed.rows import RowStore
from recembed.tables import ServedTable, Table

__all__ = ["compact_tables"]


@torch.no_grad()
def compact_tables(tables: Mapping[str, Table], store: RowStore, num_embeddings: Mapping[str, int]) -> dict[str, Table]:
    """Return the compact form of every table; the trained ones are left as they are.

    Args:
        tables: Method by vocabulary name.
        store: Their rows.
        num_embeddings: Ids by vocabulary name; a feature without a vocabulary is left out.

    Raises:
        ConfigError: a method has to be settled first.
    """
    return {name: _compact(table, store, num_embeddings.get(name)) for name, table in tables.items()}


def _compact(table: Table, store: RowStore, ids: int | None) -> Table:
    """Return the compact table, or its plain vectors where these take fewer bytes."""
    compact = table.compact(store)
    if compact is table:
        return table
    if ids is None or table.reads == "keys" or own_bytes(compact) <= 4 * ids * table.embedding_dim:
        return compact
    every = torch.arange(ids, device=next(store.buffers()).device)
    training = table.training
    vectors = table_vectors(table.eval(), store, every)
    table.train(training)
    return ServedTable(vectors, table.embedding_dim)
