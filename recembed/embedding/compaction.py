"""Trained tables → the tables that are served, each in the form that takes the fewest bytes."""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recembed.embedding.lookup import table_vectors
from recembed.errors import CheckpointError
from recembed.rows import RowStore, RowTable, ServedDtype, served_row_bytes
from recembed.tables import ServedTable, Table

__all__ = ["COMPACT_FORM", "compact_tables", "refuse_compact_state"]

COMPACT_FORM = "compact_form"
"""The buffer by which the state of a compact embedding is known."""


def refuse_compact_state(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Refuse to load the state of a compact embedding into one that trains; a hook of ``load_state_dict``.

    Raises:
        CheckpointError: the state is of a compact embedding.
    """
    if f"{prefix}{COMPACT_FORM}" in state and COMPACT_FORM not in module._buffers:
        raise CheckpointError(
            "this state is of a compact embedding, which only serves: its rows are pruned, merged or rounded, and it has "
            "no optimiser state, so it cannot go on training; load a checkpoint of the run (its folder 'checkpoint'), "
            "or train again from the run's config"
        )


@torch.no_grad()
def compact_tables(
    tables: Mapping[str, Table], store: RowStore, num_embeddings: Mapping[str, int], dtype: ServedDtype
) -> dict[str, Table]:
    """Return the compact form of every table; the trained ones are left as they are.

    Args:
        tables: Method by vocabulary name.
        store: Their rows.
        num_embeddings: Ids by vocabulary name; a feature without a vocabulary is left out.
        dtype: Type of the rows that are served.

    Raises:
        ConfigError: a method has to be settled first.
    """
    compact = {name: _apart(table.compact(store), table) for name, table in tables.items()}
    readers = Counter(slot.name for table in compact.values() for slot in set(table.slots))
    for name, table in tables.items():
        ids = num_embeddings.get(name)
        if type(table).compact is Table.compact or ids is None or table.reads == "keys":
            continue
        own = {slot for slot in compact[name].slots if readers[slot.name] == 1}  # shared rows are served anyway
        size = sum(served_row_bytes(slot, dtype) for slot in own) + compact[name].overhead_bytes
        if size > served_row_bytes(RowTable(name, ids, table.embedding_dim), dtype):
            compact[name] = ServedTable(_vectors(table, store, ids), table.embedding_dim, dtype=dtype)
    return compact


def _apart(compact: Table, table: Table) -> Table:
    """Return the compact table, or a copy of it where it holds parts of the trained one."""
    return copy.deepcopy(compact) if set(compact.modules()) & set(table.modules()) else compact


def _vectors(table: Table, store: RowStore, ids: int) -> Tensor:
    """Return the vectors of all ids as evaluation reads them; the table stays in its mode."""
    every = torch.arange(ids, device=next(store.buffers()).device)
    modes = [(module, module.training) for module in table.modules()]
    vectors = table_vectors(table.eval(), store, every)
    for module, training in modes:
        module.training = training
    return vectors
