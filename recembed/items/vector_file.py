"""Vectors that were learned here → a Parquet file by raw id, the form that ``vectors:`` of an encoder reads.

Axes: ``N`` items, ``D`` width.
"""

from pathlib import Path

import numpy as np
import polars as pl

from recembed.errors import DataError

__all__ = ["write_vectors"]


def write_vectors(path: Path | str, ids: pl.Series, vectors: np.ndarray) -> None:
    """Write the ids, under their name, and the column ``vectors``; the file appears whole or not at all.

    Shapes:
        ids: ``N`` raw ids; vectors: floats ``[N, D]``.

    Raises:
        DataError: an id is missing or stands twice, a number is not finite, or there are more of one than of the other.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise DataError(f"{path}: expected a file that ends in .parquet")
    if vectors.ndim != 2 or len(ids) != len(vectors):
        raise DataError(f"{len(ids):,} ids and vectors {list(vectors.shape)}: expected one vector per id, [N, D]")
    if missing := ids.null_count():
        raise DataError(f"{missing:,} of {len(ids):,} ids are missing; leave these rows out")
    if twice := ids.filter(ids.is_duplicated()).to_list():
        raise DataError(f"id {twice[0]!r} stands several times; keep one row per id")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        raise DataError(f"the vectors of {broken.size:,} ids are not finite, such as that of {ids[int(broken[0])]!r}")
    array = pl.Series("vectors", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    beside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame([ids.alias(ids.name or "id"), array]).write_parquet(beside)
        beside.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
