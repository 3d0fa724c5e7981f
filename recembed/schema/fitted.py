"""``FittedSchema``: the schema with everything learned from the training rows; part of the model."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import polars as pl

from recembed.errors import CheckpointError, DataError
from recembed.schema.feature import Feature, Schema
from recembed.schema.key_index import KeyIndex
from recembed.schema.numeric_stats import NumericStats
from recembed.schema.vocabulary import Vocabulary
from recembed.schema.workers import column_workers

__all__ = ["FittedSchema", "KeyType", "NumericColumn", "NumericStats"]

KeyType = Literal["int", "string"]

_FORMAT = "recembed mapping 1"
_AUTO_DROPOUT = 0.005
_ENOUGH_OOV = 0.001


@dataclass(frozen=True)
class NumericColumn:
    """Where a numeric feature lies: columns ``start : start + width`` of ``Batch.numeric``."""

    name: str
    start: int
    width: int


@dataclass(frozen=True)
class FittedSchema:
    """A schema and its vocabularies, numeric statistics and id types.

    Attributes:
        schema: The columns.
        vocabularies: By the name of the feature that owns the vocabulary; none for ``vocabulary = False``.
        numeric: Statistics by numeric feature.
        key_types: ``int`` or ``string`` by categorical, bag and sequence feature.
        rows: Training rows.
        missing_rates: Share of rows without an id (null, or a bag of none), by feature. Not part of ``version``.
        label_rates: Share of positive rows, by label. Not part of ``version``.
        whole_version: The version of the whole mapping, where this copy lacks some of its id maps; else empty.
    """

    schema: Schema
    vocabularies: dict[str, Vocabulary]
    numeric: dict[str, NumericStats]
    key_types: dict[str, KeyType]
    rows: int
    missing_rates: dict[str, float] = field(default_factory=dict)
    label_rates: dict[str, float] = field(default_factory=dict)
    whole_version: str = ""

    @property
    def version(self) -> str:
        """SHA-256 over everything that decides the mapping from raw rows to ids and numbers."""
        return self.whole_version or self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(_FORMAT.encode())
        digest.update(self.schema.to_yaml().encode())
        digest.update(json.dumps(self.key_types, sort_keys=True).encode())
        for name in sorted(self.vocabularies):
            vocabulary = self.vocabularies[name]
            digest.update(f"{name}\x1f{vocabulary.oov_buckets}\x1f{len(vocabulary.keys)}".encode())
            digest.update(np.ascontiguousarray(vocabulary.keys, "<i8").data)
        for name in sorted(self.numeric):
            digest.update(f"{name}\x1f{json.dumps(self.numeric[name].to_json())}".encode())
        return digest.hexdigest()

    def with_maps(self, names: Collection[str]) -> "FittedSchema":
        """Return a copy that has the id maps called ``names`` alone and keeps its version: what a served model reads.

        The other features can be read as keys only, as if they had no vocabulary.
        """
        kept = {name: vocabulary for name, vocabulary in self.vocabularies.items() if name in names}
        if len(kept) == len(self.vocabularies):
            return self
        return replace(self, vocabularies=kept, whole_version=self.version)

    def check_version(self, other: str, what: str) -> None:
        """Refuse ``what`` (say, ``"checkpoint run/checkpoint"``) if it was made under another mapping.

        Raises:
            CheckpointError: the versions differ.
        """
        if other != self.version:
            raise CheckpointError(
                f"{what} was made under mapping version {other[:12]}, but this schema is fitted as version "
                f"{self.version[:12]}: ids would mean other rows; load the fitted schema that was saved with it, "
                "or train again"
            )

    def vocabulary_of(self, name: str) -> Vocabulary | None:
        """Return the vocabulary that encodes the feature called ``name``, if it has one."""
        return self.vocabularies.get(self.schema[name].vocabulary_name)

    def num_embeddings(self, name: str) -> int:
        """Return the rows a full table of the feature needs.

        Raises:
            DataError: the feature has no vocabulary.
        """
        vocabulary = self.vocabulary_of(name)
        if vocabulary is None:
            raise DataError(
                f"feature {name!r} has no vocabulary (vocabulary = False), so its rows cannot be counted; "
                "give it a vocabulary or a hash method"
            )
        return vocabulary.num_embeddings

    def id_dropout(self, name: str) -> float:
        """Return the share of the feature's training ids to replace by their out-of-vocabulary bucket."""
        feature, vocabulary = self.schema[name], self.vocabulary_of(name)
        if vocabulary is None:
            return 0.0
        if feature.id_dropout != "auto":
            return feature.id_dropout
        return _AUTO_DROPOUT if vocabulary.oov_count < _ENOUGH_OOV * self.rows else 0.0

    @cached_property
    def indices(self) -> dict[str, KeyIndex]:
        """The fast lookups of the vocabularies, built once."""
        with column_workers() as pool:
            built = pool.map(KeyIndex, self.vocabularies.values())
        return dict(zip(self.vocabularies, built, strict=True))

    @cached_property
    def numeric_columns(self) -> tuple[NumericColumn, ...]:
        """Where each numeric feature lies in ``Batch.numeric``."""
        starts = np.cumsum([0, *(feature.width for feature in self.schema.numeric)]).tolist()
        features: tuple[Feature, ...] = self.schema.numeric
        return tuple(NumericColumn(f.name, start, f.width) for f, start in zip(features, starts, strict=False))

    def save(self, folder: Path | str) -> None:
        """Write ``schema.yaml``, ``fitted.json`` and ``vocabulary/*.parquet``, each beside and then renamed."""
        folder = Path(folder)
        files = {"schema.yaml": self.schema.to_yaml().encode()}
        try:
            (folder / "vocabulary").mkdir(parents=True, exist_ok=True)
            for name, vocabulary in self.vocabularies.items():
                files[_vocabulary_file(name)] = _to_parquet(vocabulary)
            record = self._record({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
            files["fitted.json"] = json.dumps(record, indent=1).encode()
            for name, data in files.items():
                _write(folder / name, data)
        except OSError as error:
            raise DataError(f"cannot save the fitted schema in {folder}: {error.strerror or error}") from None

    def _record(self, sha256: dict[str, str]) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": self.version,
            "content": self._digest,
            "rows": self.rows,
            "key_types": self.key_types,
            "missing_rates": self.missing_rates,
            "label_rates": self.label_rates,
            "vocabularies": {
                name: {k: getattr(v, k) for k in ("oov_buckets", "oov_count", "missing_count")}
                for name, v in self.vocabularies.items()
            },
            "numeric": {name: stats.to_json() for name, stats in self.numeric.items()},
            "sha256": sha256,
        }

    @classmethod
    def load(cls, folder: Path | str) -> "FittedSchema":
        """Read what ``save`` wrote.

        Raises:
            DataError: a file is missing or was changed since; the message names it.
        """
        folder = Path(folder)
        try:
            record = json.loads(_read(folder / "fitted.json"))
            files = {name: _read(folder / name, digest) for name, digest in record["sha256"].items()}
            fitted = cls(
                Schema.from_yaml(files["schema.yaml"].decode()),
                {
                    name: _from_parquet(files[_vocabulary_file(name)], numbers)
                    for name, numbers in record["vocabularies"].items()
                },
                {name: NumericStats.from_json(raw) for name, raw in record["numeric"].items()},
                record["key_types"],
                record["rows"],
                record["missing_rates"],
                record["label_rates"],
            )
            content = record.get("content", record["version"])  # older mappings are whole
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{folder / 'fitted.json'} is damaged ({error}); restore it or fit again") from error
        if fitted._digest != content:
            raise DataError(f"{folder / 'fitted.json'} was changed after it was saved; restore it or fit again")
        return fitted if content == record["version"] else replace(fitted, whole_version=record["version"])


def _vocabulary_file(name: str) -> str:
    return f"vocabulary/{quote(name, safe='')}.parquet"


def _to_parquet(vocabulary: Vocabulary) -> bytes:
    import io

    buffer = io.BytesIO()
    columns = {"key": vocabulary.keys, "count": vocabulary.counts, "value": vocabulary.values}
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def _from_parquet(data: bytes, numbers: Mapping[str, int]) -> Vocabulary:
    frame = pl.read_parquet(data)
    keys, counts = (frame[name].to_numpy(writable=True) for name in ("key", "count"))
    return Vocabulary(keys, counts, frame["value"], **numbers)


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _read(path: Path, digest: str | None = None) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; a fitted schema is a folder written by FittedSchema.save") from None
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise DataError(f"{path} was changed after it was saved; restore it or fit again")
    return data
