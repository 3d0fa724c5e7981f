"""The users or the items of a pair of bundles, as they lie on disk.

Axes: ``N`` ids of one side, ``D`` width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recembed.export.manifest import MANIFEST_FILE
from recembed.export.vectors import VECTORS_FILE, read_vectors

__all__ = ["NEIGHBOURS", "SIDES", "TRAINED", "Side", "is_pair", "read_side"]

SIDES = ("users", "items")
TRAINED, NEIGHBOURS = "trained", "neighbours"
"""Words of the column ``provenance``."""


@dataclass(frozen=True)
class Side:
    """The users, or the items.

    Attributes:
        name: Name of the id.
        ids: Raw ids.
        vectors: float32 ``[N, D]``.
        counts: Training interactions of each, int64 ``[N]``.
        provenance: Where each vector comes from, ``trained`` or ``neighbours``; None where all were trained.
    """

    name: str
    ids: pl.Series
    vectors: np.ndarray
    counts: np.ndarray
    provenance: pl.Series | None = None

    def trained(self) -> "Side":
        """Return the side without what was not trained."""
        if self.provenance is None:
            return self
        kept = self.provenance == TRAINED
        rows = kept.to_numpy()
        return Side(self.name, self.ids.filter(kept), self.vectors[rows], self.counts[rows])


def read_side(folder: Path) -> Side:
    """Read one of the two bundles."""
    frame = pl.read_parquet(folder / VECTORS_FILE)
    marks = frame["provenance"] if "provenance" in frame.columns else None
    ids = frame.to_series(0)
    return Side(ids.name, ids, read_vectors(folder), frame["training_count"].to_numpy(), marks)


def is_pair(folder: Path) -> bool:
    """Return whether a folder holds bundles of users and items."""
    return all((folder / side / MANIFEST_FILE).is_file() for side in SIDES)
