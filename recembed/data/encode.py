"""Raw rows → ``EncodedData``, block by block, into memory or into files."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from recembed.data import columns
from recembed.data.array_file import ArrayFile, GrowingArray
from recembed.data.encoded import EncodedData
from recembed.data.fit import check_key_types
from recembed.data.parsed import Parsed, parse
from recembed.errors import DataError
from recembed.hashing import MISSING_KEY
from recembed.schema.feature import Feature
from recembed.schema.fitted import FittedSchema
from recembed.schema.key_index import KeyIndex
from recembed.schema.workers import column_workers

__all__ = ["PlaceIndex", "encode", "encode_parsed", "encode_to"]

Arrays = dict[str, np.ndarray]


class PlaceIndex:
    """The ids of values that were counted: place in the count → id.

    Args:
        keys: int64 ``[V]``, the keys by place; place -1 stands for the missing value.
        index: The map of keys to ids.
    """

    def __init__(self, keys: np.ndarray, index: KeyIndex) -> None:
        self.keys = np.append(keys, MISSING_KEY)
        self._ids, unseen = index.lookup(self.keys)
        self._unseen = np.isin(np.arange(len(self.keys)), unseen) if len(unseen) else None

    def lookup(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 ids of int32 ``places`` ``[N]``, and where in ``places`` the unseen ones stand."""
        unseen = _NONE if self._unseen is None else np.flatnonzero(self._unseen.take(places))
        return self._ids.take(places), unseen


_NONE = np.empty(0, np.int64)


class _Encoder:
    """Encodes parsed blocks in order, and counts unseen ids."""

    def __init__(
        self,
        fitted: FittedSchema,
        key_features: frozenset[str],
        labels: bool,
        indices: Mapping[str, KeyIndex | PlaceIndex] | None = None,
    ) -> None:
        self.fitted, self.key_features, self.labels = fitted, key_features, labels
        self.indices = fitted.indices if indices is None else indices
        _check_key_features(fitted, key_features)
        self.unseen = {name: 0 for name in fitted.key_types if fitted.vocabulary_of(name) is not None}
        self.totals = dict.fromkeys((feature.name for feature in fitted.schema.jagged), 0)

    def blocks(self, parts: Iterable[Parsed], pool: ThreadPoolExecutor) -> Iterator[Arrays]:
        """Encode all blocks; the first item holds no rows, only types and widths."""
        yield self._nothing()
        for parsed in parts:
            yield self._block(parsed, pool)

    def _block(self, parsed: Parsed, pool: ThreadPoolExecutor) -> Arrays:
        """Return the arrays of one block; offsets go on from the block before and leave out its first."""
        schema, rows = self.fitted.schema, len(parsed.labels)
        ids = [f for f in schema.categorical if f.name not in self.key_features]
        keys = [f for f in schema.categorical if f.name in self.key_features]
        arrays: Arrays = {
            "ids": np.empty((len(ids), rows), np.int32).T,  # column by column in memory, as they are filled
            "keys": np.empty((len(keys), rows), np.int64).T,
            "numeric": parsed.numeric,
            "labels": parsed.labels,
        }

        def put(feature: Feature, matrix: np.ndarray, column: int) -> None:
            matrix[:, column] = self._values(feature, parsed.keys[feature.name])

        tasks = [(feature, arrays["ids"], column) for column, feature in enumerate(ids)]
        tasks += [(feature, arrays["keys"], column) for column, feature in enumerate(keys)]
        for _ in pool.map(put, *zip(*tasks, strict=True)) if tasks else ():
            pass
        for place, feature in enumerate(schema.jagged):
            name = feature.name
            arrays[f"jagged_{place}_values"] = self._values(feature, parsed.keys[name])
            arrays[f"jagged_{place}_offsets"] = parsed.offsets[name][1:] + self.totals[name]
            self.totals[name] += int(parsed.offsets[name][-1])
            if name in parsed.weights:
                arrays[f"jagged_{place}_weights"] = parsed.weights[name]
        return arrays

    def _values(self, feature: Feature, keys: np.ndarray) -> np.ndarray:
        index = self.indices.get(feature.vocabulary_name)
        if index is None:
            return keys
        found, unseen = index.lookup(keys)
        self.unseen[feature.name] += len(unseen)
        if feature.name not in self.key_features:
            return found
        return index.keys.take(keys) if isinstance(index, PlaceIndex) else keys

    def _nothing(self) -> Arrays:
        schema = self.fitted.schema
        as_keys = sum(feature.name in self.key_features for feature in schema.categorical)
        arrays: Arrays = {
            "ids": np.empty((0, len(schema.categorical) - as_keys), np.int32),
            "keys": np.empty((0, as_keys), np.int64),
            "numeric": np.empty((0, sum(feature.width for feature in schema.numeric)), np.float32),
            "labels": np.empty((0, len(schema.labels) * self.labels), np.float32),
        }
        for place, feature in enumerate(schema.jagged):
            wide = feature.name in self.key_features
            arrays[f"jagged_{place}_values"] = np.empty(0, np.int64 if wide else np.int32)
            arrays[f"jagged_{place}_offsets"] = np.zeros(1, np.int64)
            if feature.weights is not None:
                arrays[f"jagged_{place}_weights"] = np.empty(0, np.float32)
        return arrays


def _check_key_features(fitted: FittedSchema, key_features: frozenset[str]) -> None:
    for name in key_features:
        if fitted.schema[name].kind == "numeric":
            raise DataError(f"feature {name!r} is numeric, so it has no keys; take it out of key_features")
    for feature in fitted.schema.features:
        without = feature.kind != "numeric" and fitted.vocabulary_of(feature.name) is None
        if without and feature.name not in key_features:
            raise DataError(
                f"feature {feature.name!r} has no vocabulary (vocabulary = False), so it can only be read as keys: "
                "give it a hash method"
            )


def encode(
    frame: pl.LazyFrame | pl.DataFrame,
    fitted: FittedSchema,
    *,
    key_features: frozenset[str] = frozenset(),
    labels: bool = True,
) -> EncodedData:
    """Encode raw rows into memory.

    Args:
        frame: Raw rows.
        fitted: The mapping.
        key_features: Features to hold as raw 64-bit keys in place of ids (those read by hash methods).
        labels: Whether the label columns are there and wanted.

    Raises:
        DataError: a column is missing or of another type than in training, a label is neither 0 nor 1, a number is
            infinite, or an id has no 64-bit key. Unseen ids are no error: they are counted.
    """
    with column_workers() as pool:
        return encode_parsed(_parse(frame.lazy(), fitted, labels, pool), fitted, key_features, labels=labels, pool=pool)


def _parse(frame: pl.LazyFrame, fitted: FittedSchema, labels: bool, pool: ThreadPoolExecutor) -> Iterator[Parsed]:
    key_types = check_key_types(fitted, columns.types_of(frame), labels=labels)
    for block in columns.blocks(frame, fitted.schema, labels=labels):
        yield parse(block, fitted.schema, key_types, labels=labels, pool=pool)


def encode_parsed(
    parts: Iterable[Parsed],
    fitted: FittedSchema,
    key_features: frozenset[str],
    *,
    labels: bool,
    pool: ThreadPoolExecutor,
    indices: Mapping[str, PlaceIndex] | None = None,
    rows: int = 0,
) -> EncodedData:
    """Encode parsed blocks into memory; with ``indices`` their keys are places in these. ``rows`` may be known."""
    encoder = _Encoder(fitted, key_features, labels, indices)
    blocks = encoder.blocks(parts, pool)
    sized = {"ids", "keys", "numeric", "labels"}
    grown = {name: GrowingArray(array, rows if name in sized else 0) for name, array in next(blocks).items()}
    for arrays in blocks:
        for name, array in arrays.items():
            grown[name].append(array)
    whole = {name: growing.close() for name, growing in grown.items()}
    return EncodedData.from_arrays(fitted, key_features, whole, encoder.unseen)


def encode_to(
    frame: pl.LazyFrame | pl.DataFrame,
    fitted: FittedSchema,
    folder: Path | str,
    *,
    key_features: frozenset[str] = frozenset(),
    labels: bool = True,
) -> EncodedData:
    """Encode raw rows into ``.npy`` files with bounded memory, written beside and renamed; return them mapped.

    Raises:
        DataError: as ``encode``, or the folder cannot be written.
    """
    folder = Path(folder)
    encoder = _Encoder(fitted, key_features, labels)
    beside = folder.with_name(folder.name + ".tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        with column_workers() as pool:
            parts = _parse(frame.lazy(), fitted, labels, pool)
            shapes = _write_arrays(encoder.blocks(parts, pool), beside)
        fitted.save(beside / "fitted")
        manifest = {
            "version": fitted.version,
            "rows": shapes["ids"][0],
            "key_features": sorted(key_features),
            "unseen": encoder.unseen,
            "shapes": shapes,
        }
        (beside / "manifest.json").write_text(json.dumps(manifest, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    except OSError as error:
        raise DataError(f"cannot write encoded data to {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return EncodedData.open(folder, fitted)


def _write_arrays(parts: Iterator[Arrays], folder: Path) -> dict[str, tuple[int, ...]]:
    first = next(parts)
    files = {name: ArrayFile(folder / f"{name}.npy", array) for name, array in first.items()}
    try:
        for arrays in parts:
            for name, array in arrays.items():
                files[name].append(array)
    finally:
        shapes = {name: file.close() for name, file in files.items()}
    return shapes
