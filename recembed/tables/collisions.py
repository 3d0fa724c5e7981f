"""Which ids share rows: within a feature (harmful) and between features (the model tells them apart).

Axes: ``V`` ids of a vocabulary, ``P`` slots.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
import torch

from recembed.schema.vocabulary import Vocabulary
from recembed.tables.addresses import addresses_in_memory
from recembed.tables.base import Table
from recembed.tables.full import FullTable

__all__ = ["collision_report"]


def collision_report(tables: Mapping[str, Table], vocabularies: Mapping[str, Vocabulary]) -> pl.DataFrame:
    """Count shared rows over the known ids of every vocabulary.

    Columns: ``feature``; ``store``; ``ids``; ``rows`` (of the store); ``probes``; ``within`` and ``across``: share of
    ids whose first row is also the first row of another id of the same feature, or any row of another feature;
    ``expected_within``: ``1 - (1 - 1/rows)**(ids - 1)``, what a uniform hash gives; ``identical``: share of ids whose
    rows all equal those of another id of the feature; ``damage``: share of the feature's training occurrences
    whose first row has an id more frequent than their own (Unified Embedding, and the fact that under Zipf's law
    most traffic is free of collisions while most ids collide).

    Args:
        tables: Method by vocabulary name.
        vocabularies: Those that exist; others are left out.
    """
    addresses = {}
    for name, vocabulary in vocabularies.items():
        table = tables.get(name)
        if table is None or not table.slots or not len(vocabulary.keys):
            continue
        ids = vocabulary.keys if table.reads == "keys" else np.arange(len(vocabulary.keys)) + vocabulary.first_id
        addresses[name] = addresses_in_memory(table, torch.tensor(ids)).numpy()  # [V, P]
    stores = {name: tables[name].slots[0] for name in addresses}
    users = {
        slot.name: _features_per_row([addresses[n] for n in addresses if stores[n] == slot], slot.num_embeddings)
        for slot in stores.values()
    }
    lines = [
        _line(name, tables[name], rows, vocabularies[name].counts, users[stores[name].name])
        for name, rows in addresses.items()
    ]
    return pl.DataFrame(lines, schema=_SCHEMA)


_SCHEMA = {
    "feature": pl.String,
    "store": pl.String,
    "ids": pl.Int64,
    "rows": pl.Int64,
    "probes": pl.Int64,
    "within": pl.Float64,
    "expected_within": pl.Float64,
    "across": pl.Float64,
    "identical": pl.Float64,
    "damage": pl.Float64,
}


def _features_per_row(addresses: list[np.ndarray], rows: int) -> np.ndarray:
    users = np.zeros(rows, np.int64)
    for own in addresses:
        users[np.unique(own)] += 1
    return users


def _line(name: str, table: Table, rows: np.ndarray, counts: np.ndarray, users: np.ndarray) -> dict[str, object]:
    store = table.slots[0]
    first = rows[:, 0]
    ids_in_row = np.bincount(first, minlength=store.num_embeddings)
    heaviest = np.zeros(store.num_embeddings, np.int64)
    np.maximum.at(heaviest, first, counts)
    _, place, equal = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    reserved = getattr(table, "first_bucket", 0)
    buckets = store.num_embeddings - reserved
    exact = isinstance(table, FullTable)
    return {
        "feature": name,
        "store": store.name,
        "ids": len(rows),
        "rows": store.num_embeddings,
        "probes": len(table.slots),
        "within": float((ids_in_row[first] > 1).mean()),
        "expected_within": 0.0 if exact else 1 - (1 - 1 / buckets) ** (len(rows) - 1),
        "across": float((users[first] > 1).mean()),
        "identical": float((equal[place.reshape(-1)] > 1).mean()),
        "damage": float(counts[heaviest[first] > counts].sum() / max(int(counts.sum()), 1)),
    }
