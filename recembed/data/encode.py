"""Raw rows → ``EncodedData``, block by block, into memory or into files."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from recembed.data import columns
from recembed.data.array_file import ArrayFile
from recembed.data.encoded import EncodedData
from recembed.data.fit import check_key_types
from recembed.data.keys import to_keys
from recembed.data.matrices import label_matrix, numeric_matrix
from recembed.errors import DataError
from recembed.schema.feature import Feature
from recembed.schema.fitted import FittedSchema

__all__ = ["encode", "encode_to"]

Arrays = dict[str, np.ndarray]


class _Encoder:
    """Encodes blocks of raw rows in order, and counts unseen ids."""

    def __init__(self, fitted: FittedSchema, key_features: frozenset[str], labels: bool, types: pl.Schema) -> None:
        self.fitted, self.key_features, self.labels = fitted, key_features, labels
        self.key_types = check_key_types(fitted, types, labels=labels)
        _check_key_features(fitted, key_features)
        self.unseen = {name: 0 for name in self.key_types if fitted.vocabulary_of(name) is not None}
        self.totals = [0] * len(fitted.schema.jagged)

    def block(self, block: pl.DataFrame, pool: ThreadPoolExecutor) -> Arrays:
        """Return the arrays of one block; offsets go on from the block before and leave out its first."""
        schema = self.fitted.schema
        ids = [f for f in schema.categorical if f.name not in self.key_features]
        keys = [f for f in schema.categorical if f.name in self.key_features]
        arrays: Arrays = {
            "ids": np.empty((block.height, len(ids)), np.int32),
            "keys": np.empty((block.height, len(keys)), np.int64),
            "numeric": numeric_matrix(block, schema),
            "labels": label_matrix(block, schema) if self.labels else np.empty((block.height, 0), np.float32),
        }

        def put(feature: Feature, matrix: np.ndarray, column: int) -> None:
            matrix[:, column] = self._values(feature, columns.ids(block, feature))

        tasks = [(feature, arrays["ids"], column) for column, feature in enumerate(ids)]
        tasks += [(feature, arrays["keys"], column) for column, feature in enumerate(keys)]
        for _ in pool.map(put, *zip(*tasks, strict=True)) if tasks else ():
            pass
        for place, feature in enumerate(schema.jagged):
            arrays |= self._jagged(block, place, feature)
        return arrays

    def _values(self, feature: Feature, ids: pl.Series) -> np.ndarray:
        keys = to_keys(ids)
        index = self.fitted.indices.get(feature.vocabulary_name)
        if index is None:
            return keys
        found, unseen = index.lookup(keys)
        self.unseen[feature.name] += len(unseen)
        return keys if feature.name in self.key_features else found

    def _jagged(self, block: pl.DataFrame, place: int, feature: Feature) -> Arrays:
        column = columns.jagged_ids(block, feature, self.key_types[feature.name])
        arrays = {
            f"jagged_{place}_values": self._values(feature, column.ids),
            f"jagged_{place}_offsets": column.offsets[1:] + self.totals[place],
        }
        self.totals[place] += int(column.offsets[-1])
        if column.weights is not None:
            arrays[f"jagged_{place}_weights"] = column.weights
        return arrays

    def blocks(self, frame: pl.LazyFrame) -> Iterator[Arrays]:
        """Encode the whole frame; the first item holds no rows, only types and widths."""
        schema = self.fitted.schema
        yield self._nothing()
        with ThreadPoolExecutor() as pool:
            for block in columns.blocks(frame, schema, labels=self.labels):
                yield self.block(block, pool)

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
    frame = frame.lazy()
    encoder = _Encoder(fitted, key_features, labels, columns.types_of(frame))
    parts: dict[str, list[np.ndarray]] = {}
    for arrays in encoder.blocks(frame):
        for name, array in arrays.items():
            parts.setdefault(name, []).append(array)
    whole = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
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
    folder, frame = Path(folder), frame.lazy()
    encoder = _Encoder(fitted, key_features, labels, columns.types_of(frame))
    beside = folder.with_name(folder.name + ".tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        shapes = _write_arrays(encoder.blocks(frame), beside)
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
