"""The vectors of a retrieval run on disk: by raw id, with what each user has met.

Axes: ``U`` users, ``I`` items, ``D`` width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recembed.evaluation import UserItems, rank_items
from recembed.run.files import write_table
from recembed.run.retrieval_data import RetrievalData

__all__ = ["GOLDEN_FILE", "RunVectors", "read_run_vectors", "write_golden", "write_run_vectors"]

GOLDEN_FILE = "golden.parquet"
_GOLDEN_USERS, _GOLDEN_LENGTH = 256, 20


@dataclass(frozen=True)
class RunVectors:
    """The vectors of a run.

    Attributes:
        user_ids, item_ids: Raw ids, in the order of the vectors.
        users: float32 ``[U, D]``.
        items: float32 ``[I, D]``.
        user_counts, item_counts: Training interactions of each.
    """

    user_ids: pl.Series
    item_ids: pl.Series
    users: Tensor
    items: Tensor
    user_counts: np.ndarray
    item_counts: np.ndarray


def write_run_vectors(out: Path, data: RetrievalData, train: UserItems, users: Tensor, items: Tensor) -> None:
    """Write ``vectors/users.parquet`` and ``vectors/items.parquet``: raw id, ``vector`` and ``training_count``."""
    sides = (
        ("users", data.user, data.graph.user_ids, users, train.counts),
        ("items", data.item, data.graph.item_ids, items, train.item_counts),
    )
    for side, name, ids, vectors, counts in sides:
        column = pl.Series("vector", vectors.numpy(), dtype=pl.Array(pl.Float32, vectors.shape[1]))
        write_table(
            out / "vectors" / f"{side}.parquet",
            pl.DataFrame([ids.alias(name), column, pl.Series("training_count", counts)]),
        )


def write_golden(out: Path, data: RetrievalData, seen: UserItems, users: Tensor, items: Tensor) -> None:
    """Write what the evaluation recommends to the first test users: ``user``, ``seen`` and ``top``, by raw id."""
    who = np.flatnonzero(data.test.counts)[:_GOLDEN_USERS]
    top = rank_items(users, items, who, _GOLDEN_LENGTH, seen=seen)
    ids = data.graph.item_ids
    columns = {
        "user": data.graph.user_ids[who],
        "seen": [ids[seen.of(int(user))].to_list() for user in who],
        "top": [ids[row[row >= 0]].to_list() for row in top],
    }
    write_table(out / GOLDEN_FILE, pl.DataFrame(columns))


def read_run_vectors(folder: Path) -> RunVectors:
    """Read what ``write_run_vectors`` wrote."""
    users, items = (pl.read_parquet(folder / "vectors" / f"{side}.parquet") for side in ("users", "items"))
    return RunVectors(
        users.to_series(0),
        items.to_series(0),
        _tensor(users["vector"]),
        _tensor(items["vector"]),
        users["training_count"].to_numpy(),
        items["training_count"].to_numpy(),
    )


def _tensor(vectors: pl.Series) -> Tensor:
    return torch.from_numpy(np.array(vectors.rechunk().to_numpy()))
