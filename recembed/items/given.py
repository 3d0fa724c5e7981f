"""Vectors from elsewhere: Parquet, safetensors, npz or npy, keyed by raw id and never by the order of rows.

Axes: ``N`` rows of a file, ``D`` width.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recembed.data.keys import normal_ids
from recembed.errors import DataError, did_you_mean
from recembed.items.catalogue import sorted_by_key
from recembed.items.faults import Faults
from recembed.items.settings import VectorsConfig
from recembed.sources import reading

__all__ = ["GivenVectors", "read_vectors"]

_CHUNK = 1 << 15


@dataclass(frozen=True, eq=False)
class GivenVectors:
    """Vectors by raw id, in the order of the keys.

    Attributes:
        ids: Raw ids, ``N`` of them.
        keys: int64 ``[N]``, ascending.
        vectors: Floats ``[M, D]``, as the file has them; perhaps mapped from it.
        rows: int64 ``[N]``, the row of ``vectors`` that each id owns.
    """

    ids: pl.Series
    keys: np.ndarray
    vectors: np.ndarray
    rows: np.ndarray


def read_vectors(name: str, config: VectorsConfig, faults: Faults, id_column: str | None = None) -> GivenVectors:
    """Read a file of vectors.

    Rows without an id, of another length than most, or with NaN or infinity are left out and counted. An id that
    stands several times keeps its first vector; where the others differ it is counted.

    Args:
        name: What the vectors are called in messages.
        config: The file.
        faults: Told of what is wrong.
        id_column: Name of the ids where ``config`` names none.

    Raises:
        DataError: the file is not there, not of its format, or holds no vectors by id.
    """
    if not config.path.is_file():
        raise DataError(f"vectors.{name}: {config.path} does not exist")
    readers = {".parquet": _parquet, ".safetensors": _safetensors, ".npz": _npz, ".npy": _npy}
    if config.path.suffix not in readers:
        raise DataError(
            f"vectors.{name}: {config.path}: expected .parquet, .safetensors, .npz or .npy, found {config.path.suffix!r}"
        )
    ids, vectors, rows = readers[config.path.suffix](name, config, faults, id_column)
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(f"vectors.{name}: {config.path} holds {vectors.dtype} {vectors.shape}: expected floats [N, D]")
    if len(ids) != len(rows):
        raise DataError(f"vectors.{name}: {len(ids):,} ids and {len(rows):,} vectors; give one id per vector")
    return _clean(name, ids, vectors, rows, faults)


def _clean(name: str, ids: pl.Series, vectors: np.ndarray, rows: np.ndarray, faults: Faults) -> GivenVectors:
    null = ids.is_null().to_numpy()
    faults.broken(name, "content without an id", [None] * int(null.sum()))
    ids, rows = ids.filter(pl.Series(~null)), rows[~null]
    finite = np.concatenate(
        [np.isfinite(vectors[rows[i : i + _CHUNK]]).all(axis=1) for i in range(0, len(rows), _CHUNK)] or [rows == rows]
    )
    faults.broken(name, "vectors with NaN or infinity", ids.filter(pl.Series(~finite)).to_list())
    ids, rows = ids.filter(pl.Series(finite)), rows[finite]
    ids = normal_ids(ids, f"{name} ids")
    order, keys = sorted_by_key(ids)
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    owner = order[np.flatnonzero(first)[np.cumsum(first) - 1]] if len(order) else order
    twice = [p for p in np.flatnonzero(~first) if not np.array_equal(vectors[rows[order[p]]], vectors[rows[owner[p]]])]
    several = ids.gather(order[twice]).unique(maintain_order=True).to_list() if twice else []
    faults.broken(name, "ids with different vectors (the first is kept)", several)
    order = order[first]
    if not len(order):
        raise DataError(f"vectors.{name}: the file holds no vector that can be used")
    return GivenVectors(ids.gather(order), keys[first], vectors, rows[order])


def _id_name(config: VectorsConfig, known: list[str], id_column: str | None, name: str) -> str:
    asked = config.id or next((c for c in (id_column, "id", "ids") if c in known), id_column or "id")
    if asked not in known:
        raise DataError(f"vectors.{name}: {config.path} has no ids called {asked!r}" + did_you_mean(asked, known))
    return asked


def _vector_name(config: VectorsConfig, likely: list[str], known: list[str], name: str) -> str:
    if config.column is not None:
        if config.column not in known:
            raise DataError(
                f"vectors.{name}: {config.path} has no vectors called {config.column!r}"
                + did_you_mean(config.column, known)
            )
        return config.column
    if len(likely) != 1:
        raise DataError(
            f"vectors.{name}: {config.path} holds {len(likely)} columns of vectors ({', '.join(likely) or 'none'}); "
            f"name one as vectors.{name}.column"
        )
    return likely[0]


def _parquet(
    name: str, config: VectorsConfig, faults: Faults, id_column: str | None
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    with reading(config.path):
        types = pl.read_parquet_schema(config.path)
        likely = [column for column, kind in types.items() if isinstance(kind, pl.Array | pl.List)]
        own_id = _id_name(config, list(types), id_column, name)
        column = _vector_name(config, likely, list(types), name)
        frame = pl.read_parquet(config.path, columns=[own_id, column])
    cells = frame[column]
    if isinstance(cells.dtype, pl.Array):
        cells = cells.cast(pl.List(cells.dtype.inner))
    if not isinstance(cells.dtype, pl.List) or not cells.dtype.inner.is_numeric():
        raise DataError(f"vectors.{name}: column {column!r} has type {cells.dtype}: expected lists of numbers")
    absent = cells.is_null()
    faults.lacking(name, "no vector", frame[own_id].filter(absent).to_list())
    lengths = cells.list.len()
    usual = lengths.filter(~absent).mode().sort().to_list()
    if not usual or not usual[-1]:
        raise DataError(f"vectors.{name}: the file holds no vector that can be used")
    other = (lengths != usual[-1]) & ~absent
    faults.broken(name, f"vectors of another length than {usual[-1]}", frame[own_id].filter(other).to_list())
    keep = (lengths == usual[-1]).fill_null(False)
    flat = cells.filter(keep).explode().cast(pl.Float32).fill_null(float("nan")).to_numpy()
    vectors = flat.reshape(-1, int(usual[-1]))
    return frame[own_id].filter(keep), vectors, np.arange(len(vectors))


def _arrays(
    name: str, config: VectorsConfig, arrays: dict[str, np.ndarray], id_column: str | None
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    own_id = _id_name(config, list(arrays), id_column, name)
    likely = [key for key, array in arrays.items() if array.ndim == 2 and key != own_id]
    vectors = arrays[_vector_name(config, likely, list(arrays), name)]
    return _ids(arrays[own_id]), vectors, np.arange(len(vectors))


def _ids(array: np.ndarray) -> pl.Series:
    return pl.Series("id", array.tolist() if array.dtype.kind in "US" else array)


def _safetensors(
    name: str, config: VectorsConfig, faults: Faults, id_column: str | None
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(config.path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"vectors.{name}: {config.path} is no whole safetensors file ({error})") from error
    return _arrays(name, config, arrays, id_column)


def _npz(
    name: str, config: VectorsConfig, faults: Faults, id_column: str | None
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    with _told(name, config.path), config.path.open("rb") as file:
        found = np.load(file, allow_pickle=False)
        arrays = {key: found[key] for key in found.files}
    return _arrays(name, config, arrays, id_column)


def _npy(
    name: str, config: VectorsConfig, faults: Faults, id_column: str | None
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    vectors = _load(name, config.path)
    if vectors.dtype.names:  # a column of ids beside the vectors
        return _arrays(name, config, {field: vectors[field] for field in vectors.dtype.names}, id_column)
    if config.ids is None:
        raise DataError(
            f"vectors.{name}: {config.path} holds vectors without ids, and rows are never matched by their order; "
            f"name the file of the ids as vectors.{name}.ids"
        )
    if config.ids.suffix == ".parquet":
        with reading(config.ids):
            frame = pl.read_parquet(config.ids)
        ids = frame[_id_name(config, frame.columns, id_column or frame.columns[0], name)]
    else:
        ids = _ids(_load(name, config.ids))
    return ids, vectors, np.arange(len(vectors))


def _load(name: str, path: Path) -> np.ndarray:
    with _told(name, path):
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array


@contextmanager
def _told(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"vectors.{name}: {path} is no whole file of plain arrays ({error})") from error
