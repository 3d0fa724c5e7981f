"""The vectors of one feature, by raw id, in a Parquet file that any tool reads.

Axes: ``N`` ids, ``D`` width, ``P`` rows fetched per id.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recembed.embedding import FeatureEmbedding, table_vectors
from recembed.errors import ExportError
from recembed.hashing import MISSING_KEY
from recembed.items.served import ServedItems
from recembed.items.table import ContentTable
from recembed.schema.fitted import FittedSchema
from recembed.schema.vocabulary import MISSING_ID, Vocabulary

__all__ = [
    "ID_MAP_FILE",
    "RESERVED_FILE",
    "VECTORS_FILE",
    "VectorsRecord",
    "feature_vectors",
    "known_vectors",
    "read_vectors",
    "write_id_map",
    "write_vectors",
]

VECTORS_FILE = "vectors.parquet"
RESERVED_FILE = "reserved_vectors.parquet"
ID_MAP_FILE = "id_map.parquet"

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class VectorsRecord:
    """What was written: how many vectors, how wide, and SHA-256 over their float32 bytes."""

    count: int
    dimension: int
    digest: str


@torch.no_grad()
def feature_vectors(embedding: FeatureEmbedding, name: str, ids: Tensor) -> Tensor:
    """Return the vectors that a model sees for ids of feature ``name``: decoded, and projected if fields are.

    Args:
        embedding: The trained embedding part.
        name: A categorical, bag or sequence feature.
        ids: Vocabulary ids, or raw keys where ``name`` is in ``embedding.key_features``.

    Shapes:
        ids: int64 ``[N]``. Returns float32 ``[N, D]``.
    """
    table = embedding.tables[embedding.schema[name].vocabulary_name]
    vectors = table_vectors(table, embedding.store, ids)
    if len(embedding.projections) and name in embedding.field_keys:
        vectors = embedding.projections[embedding.field_keys.index(name)](vectors)
    return vectors


def vocabulary_to_export(embedding: FeatureEmbedding, fitted: FittedSchema, name: str) -> Vocabulary:
    """Return the vocabulary whose ids are exported.

    Raises:
        ExportError: the feature holds numbers, or its ids cannot be listed.
    """
    if fitted.schema[name].kind == "numeric":
        raise ExportError(f"feature {name!r} is numeric, so it has no ids to export; choose a categorical feature")
    vocabulary = fitted.vocabulary_of(name)
    if vocabulary is None:
        raise ExportError(
            f"feature {name!r} has no vocabulary (vocabulary = False), so its ids cannot be listed; "
            "set vocabulary: true and train again"
        )
    if len(vocabulary.keys) == 0:
        raise ExportError(f"feature {name!r} has no known ids; lower its min_count and train again")
    if name in ("vector", "training_count", "provenance"):
        raise ExportError(f"feature {name!r} has the name of a column of {VECTORS_FILE}; rename the feature")
    return vocabulary


def known_vectors(embedding: FeatureEmbedding, fitted: FittedSchema, name: str) -> Iterator[np.ndarray]:
    """Yield the vectors of all known ids in id order, float32 ``[<= 65536, D]`` at a time."""
    vocabulary = vocabulary_to_export(embedding, fitted, name)
    for start in range(0, len(vocabulary.keys), _CHUNK):
        if name in embedding.key_features:
            ids = vocabulary.keys[start : start + _CHUNK]
        else:
            stop = min(start + _CHUNK, len(vocabulary.keys))
            ids = np.arange(start + vocabulary.first_id, stop + vocabulary.first_id)
        yield feature_vectors(embedding, name, _to_device(ids, embedding)).cpu().numpy()


def _to_device(ids: np.ndarray, embedding: FeatureEmbedding) -> Tensor:
    return torch.from_numpy(np.array(ids)).to(embedding.device)


def write_vectors(embedding: FeatureEmbedding, fitted: FittedSchema, name: str, folder: Path) -> VectorsRecord:
    """Write the vectors of all known ids, most frequent first, and those of missing and out-of-vocabulary ids.

    ``vectors.parquet`` holds the raw id (column ``name``), ``vector`` and ``training_count``; where the feature has
    content, also ``provenance``: ``trained``, ``content`` or ``out_of_vocabulary``.
    ``reserved_vectors.parquet`` holds ``meaning`` (``missing``, ``out_of_vocabulary_0``, ...), ``vector`` and
    ``training_count``; a hash method has no out-of-vocabulary row, an unseen id has the vector of its hash.

    Raises:
        ExportError: the feature has no ids that can be listed, or a vector is not finite.
    """
    vocabulary = vocabulary_to_export(embedding, fitted, name)
    vectors: np.ndarray | None = None
    start, digest = 0, hashlib.sha256()
    for chunk in known_vectors(embedding, fitted, name):
        if vectors is None:
            vectors = np.empty((len(vocabulary.keys), chunk.shape[1]), np.float32)
        vectors[start : start + len(chunk)] = chunk
        start += len(chunk)
    assert vectors is not None
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        raise ExportError(
            f"feature {name!r}: the vectors of {broken.size} ids, among them {vocabulary.values[int(broken[0])]!r}, "
            "are not finite; the training diverged"
        )
    digest.update(vectors.data)
    columns = {name: vocabulary.values, "vector": _array(vectors), "training_count": vocabulary.counts}
    table = embedding.tables[embedding.schema[name].vocabulary_name]
    if isinstance(table, ServedItems | ContentTable):
        columns["provenance"] = pl.Series(table.provenance(_to_device(vocabulary.keys, embedding)))
    pl.DataFrame(columns).write_parquet(folder / VECTORS_FILE, compression="lz4", row_group_size=1 << 18)
    _write_reserved(embedding, vocabulary, name, folder)
    return VectorsRecord(len(vectors), vectors.shape[1], digest.hexdigest())


def _write_reserved(embedding: FeatureEmbedding, vocabulary: Vocabulary, name: str, folder: Path) -> None:
    if name in embedding.key_features:
        ids, meanings = np.array([MISSING_KEY]), ["missing"]
    else:
        ids = np.arange(MISSING_ID, vocabulary.first_id)
        meanings = ["missing", *(f"out_of_vocabulary_{bucket}" for bucket in range(vocabulary.oov_buckets))]
    vectors = feature_vectors(embedding, name, _to_device(ids, embedding)).cpu().numpy()
    counts = vocabulary.row_counts()[MISSING_ID : MISSING_ID + len(ids)]
    columns = {"meaning": meanings, "vector": _array(vectors), "training_count": counts}
    pl.DataFrame(columns).write_parquet(folder / RESERVED_FILE)


def _array(vectors: np.ndarray) -> pl.Series:
    return pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))


def write_id_map(vocabulary: Vocabulary, folder: Path) -> None:
    """Write ``id_map.parquet``: 64-bit ``key``, vocabulary ``id`` and raw ``value``, in id order."""
    ids = np.arange(len(vocabulary.keys)) + vocabulary.first_id
    columns = [pl.Series("key", vocabulary.keys), pl.Series("id", ids), vocabulary.values.alias("value")]
    pl.DataFrame(columns).write_parquet(folder / ID_MAP_FILE, compression="lz4")


def read_vectors(folder: Path) -> np.ndarray:
    """Return the vectors of a bundle, float32 ``[N, D]``, in the order of the file."""
    column = pl.read_parquet(folder / VECTORS_FILE, columns=["vector"])["vector"]
    return np.ascontiguousarray(column.rechunk().to_numpy())
