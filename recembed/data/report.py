"""What the data are: one row per feature and split, as a table and as text."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from recembed.data.encoded import EncodedData
from recembed.hashing import MISSING_KEY
from recembed.schema.feature import Feature
from recembed.schema.fitted import FittedSchema
from recembed.schema.vocabulary import MISSING_ID

__all__ = ["describe", "report"]

_BLOCK, _SAMPLED = 1 << 18, 1 << 20
_LEVELS = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
_COLUMNS: dict[str, type[pl.DataType]] = {
    "split": pl.String,
    "name": pl.String,
    "kind": pl.String,
    "rows": pl.Int64,
    "vocabulary": pl.Int64,
    "distinct": pl.Int64,
    "missing_rate": pl.Float64,
    "unseen_rate": pl.Float64,
    "mean_length": pl.Float64,
    "mean": pl.Float64,
    **dict.fromkeys(_LEVELS, pl.Float64),
}


def report(fitted: FittedSchema, splits: Mapping[str, EncodedData]) -> pl.DataFrame:
    """Return one row per split and feature, then per split and label; null where a column does not apply.

    Columns: ``vocabulary`` known values; ``distinct`` ids in the split (values that fold into one bucket are one id);
    ``missing_rate`` share of rows without a value; ``unseen_rate`` share of ids that are not in the vocabulary;
    ``mean_length`` ids a row; ``mean`` and quantiles of numbers; the ``mean`` of a label is its rate of ones. The rows are
    read once, block by block; quantiles of more than a million rows are those of a million, spread evenly.
    """
    rows = [line for name, data in splits.items() for line in _lines(name, fitted, data)]
    return pl.DataFrame(rows, schema=_COLUMNS)


def _lines(split: str, fitted: FittedSchema, data: EncodedData) -> Iterator[dict[str, Any]]:
    counted = _counted(fitted, data)
    for feature in fitted.schema.features:
        head = {"split": split, "name": feature.name, "kind": feature.kind, "rows": len(data)}
        found = counted[feature.name]
        yield head | (found.line() if isinstance(found, _Numbers) else _of_ids(feature, fitted, data, found))
    for place, label in enumerate(fitted.schema.labels if data.labels.shape[1] else ()):
        rate = float(data.labels[:, place].mean(dtype=np.float64)) if len(data) else None
        yield {"split": split, "name": label.name, "kind": "label", "rows": len(data), "mean": rate}
    data.release()


def _counted(fitted: FittedSchema, data: EncodedData) -> "dict[str, _Ids | _Numbers]":
    """Read all rows once."""
    starts = {column.name: column.start for column in fitted.numeric_columns}
    features = fitted.schema.features
    counted: dict[str, _Ids | _Numbers] = {}
    for feature in features:
        vocabulary = None if feature.name in data.key_features else fitted.vocabulary_of(feature.name)
        size = None if vocabulary is None else vocabulary.num_embeddings
        counted[feature.name] = _Numbers() if feature.kind == "numeric" else _Ids(size)
    share = min(1.0, _SAMPLED / max(len(data), 1))
    for low in range(0, len(data), _BLOCK):
        block = slice(low, min(low + _BLOCK, len(data)))
        for feature in features:
            found = counted[feature.name]
            if isinstance(found, _Numbers):
                start = starts[feature.name]
                found.add(data.numeric[block, start : start + feature.width], share)
            elif feature.jagged:
                offsets = data.jagged[feature.name].offsets
                found.add(data.column(feature.name)[offsets[block.start] : offsets[block.stop]])
            else:
                found.add(data.column(feature.name)[block])
        data.release()
    return counted


class _Ids:
    """How many distinct ids, and how many missing ones.

    Args:
        size: Ids are below it; None for 64-bit keys.
    """

    def __init__(self, size: int | None) -> None:
        self._seen = np.zeros(0, np.int64) if size is None else np.zeros(size, bool)
        self._keys = size is None
        self.missing = 0

    def add(self, ids: np.ndarray) -> None:
        missing = ids == (MISSING_KEY if self._keys else MISSING_ID)
        self.missing += int(missing.sum())
        if self._keys:
            self._seen = np.union1d(self._seen, ids[~missing])
        else:
            self._seen[ids[~missing]] = True

    @property
    def distinct(self) -> int:
        return len(self._seen) if self._keys else int(self._seen.sum())


class _Numbers:
    """Share of missing numbers, mean, extremes, and a sample for the quantiles."""

    def __init__(self) -> None:
        self._total = self._known = 0
        self._sum, self._low, self._high = 0.0, np.inf, -np.inf
        self._sample: list[np.ndarray] = []

    def add(self, numbers: np.ndarray, share: float) -> None:
        known = numbers[~np.isnan(numbers)]
        self._total += numbers.size
        self._known += known.size
        if known.size:
            self._sum += float(known.sum(dtype=np.float64))
            self._low, self._high = min(self._low, float(known.min())), max(self._high, float(known.max()))
            self._sample.append(known[: max(1, round(share * known.size))].copy())

    def line(self) -> dict[str, Any]:
        if not self._known:
            return {"missing_rate": 1.0 if self._total else None}
        quantiles = np.quantile(np.concatenate(self._sample), list(_LEVELS.values())).tolist()
        line = dict(zip(_LEVELS, quantiles, strict=True)) | {"min": self._low, "max": self._high}
        return line | {"missing_rate": 1 - self._known / self._total, "mean": self._sum / self._known}


def _of_ids(feature: Feature, fitted: FittedSchema, data: EncodedData, found: _Ids) -> dict[str, Any]:
    total = len(data.column(feature.name))
    vocabulary = fitted.vocabulary_of(feature.name)
    line: dict[str, Any] = {"distinct": found.distinct, "missing_rate": _share(found.missing, total)}
    if vocabulary is not None:
        line["vocabulary"] = len(vocabulary.keys)
        line["unseen_rate"] = _share(data.unseen[feature.name], total)
    if feature.jagged:
        lengths = np.diff(data.jagged[feature.name].offsets)
        line["missing_rate"] = _share((lengths == 0).sum(), len(data))
        line["mean_length"] = _share(lengths.sum(), len(data))
    return line


def _share(part: int, whole: int) -> float | None:
    return int(part) / whole if whole else None


def describe(table: pl.DataFrame) -> str:
    """Return ``report``'s table as aligned plain text.

    >>> table = pl.DataFrame({"split": ["train"], "name": ["city"], "rows": [1200], "missing_rate": [0.25]})
    >>> print(describe(table))
    split  name   rows  missing_rate
    train  city  1,200          0.25
    """
    cells = [table.columns, *([_text(value) for value in row] for row in table.rows())]
    widths = [max(len(row[place]) for row in cells) for place in range(table.width)]
    left = [dtype == pl.String for dtype in table.dtypes]
    aligned = (
        "  ".join(
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(row, widths, left, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in aligned)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
