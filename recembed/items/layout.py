"""Vectors of some items laid out in the order of all items, and mapped from files that processes share.

Axes: ``N`` items, ``D`` width.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recembed.items.attributes import AttributeCodes
from recembed.items.cache import VectorCache

__all__ = ["ItemVectors", "attributes_onto", "laid_out", "vectors_onto"]


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """The vectors of one source.

    Attributes:
        matrix: float32 ``[N, D]``, mapped from a file; the rows of absent items mean nothing.
        present: bool ``[N]``.
        space: What the vectors depend on beside content; equal spaces can be mixed.
        record: The same in words: model, revision and preprocessing.
    """

    matrix: np.ndarray
    present: np.ndarray
    space: str
    record: Mapping[str, Any] = field(default_factory=dict)


def vectors_onto(found: ItemVectors, keys: np.ndarray, whole: np.ndarray) -> ItemVectors:
    """Return vectors of the items ``keys`` as vectors of the items ``whole``, of which ``keys`` are a part."""
    if len(keys) == len(whole):
        return found
    places = np.searchsorted(whole, keys)
    matrix, present = np.zeros((len(whole), found.matrix.shape[1]), np.float32), np.zeros(len(whole), bool)
    matrix[places], present[places] = found.matrix, found.present
    return replace(found, matrix=matrix, present=present)


def attributes_onto(found: AttributeCodes, keys: np.ndarray, whole: np.ndarray) -> AttributeCodes:
    """Return attributes of the items ``keys`` as attributes of the items ``whole``."""
    if len(keys) == len(whole):
        return found
    places = np.searchsorted(whole, keys)

    def spread(array: np.ndarray, fill: float) -> np.ndarray:
        wide = np.full((len(whole), *array.shape[1:]), fill, array.dtype)
        wide[places] = array
        return wide

    parts = (spread(found.codes, 0), spread(found.weights, 0), spread(found.numbers, np.nan), spread(found.present, 0))
    return AttributeCodes(*parts, found.buckets)


def laid_out(
    keys: np.ndarray, vectors: np.ndarray, rows: np.ndarray, whole: np.ndarray, cache: VectorCache
) -> ItemVectors:
    """Write given vectors in the order of the keys into a file that every process maps, unless it is there already."""
    places = np.searchsorted(whole, keys)
    present = np.zeros(len(whole), bool)
    present[places] = True
    digest = hashlib.blake2b(whole.tobytes() + keys.tobytes(), digest_size=12)
    step = 1 << 15
    for start in range(0, len(rows), step):
        digest.update(np.ascontiguousarray(vectors[rows[start : start + step]], np.float32).tobytes())
    path = cache.folder / "views" / f"{digest.hexdigest()}.npy"
    if not path.is_file():
        beside = path.with_name(path.name + ".tmp")
        matrix = np.lib.format.open_memmap(beside, "w+", np.float32, (len(whole), vectors.shape[1]))
        for start in range(0, len(rows), step):
            matrix[places[start : start + step]] = vectors[rows[start : start + step]]
        matrix.flush()
        del matrix
        beside.replace(path)
    return ItemVectors(np.load(path, mmap_mode="c"), present, cache.name, cache.encoder)
