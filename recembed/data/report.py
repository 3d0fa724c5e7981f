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
    ``mean_length`` ids a row; ``mean`` and quantiles of numbers; the ``mean`` of a label is its rate of ones.
    """
    rows = [line for name, data in splits.items() for line in _lines(name, fitted, data)]
    return pl.DataFrame(rows, schema=_COLUMNS)


def _lines(split: str, fitted: FittedSchema, data: EncodedData) -> Iterator[dict[str, Any]]:
    starts = {column.name: column.start for column in fitted.numeric_columns}
    for feature in fitted.schema.features:
        head = {"split": split, "name": feature.name, "kind": feature.kind, "rows": len(data)}
        if feature.kind == "numeric":
            start = starts[feature.name]
            yield head | _of_numbers(data.numeric[:, start : start + feature.width])
        else:
            yield head | _of_ids(feature, fitted, data)
    for place, label in enumerate(fitted.schema.labels if data.labels.shape[1] else ()):
        rate = float(data.labels[:, place].mean()) if len(data) else None
        yield {"split": split, "name": label.name, "kind": "label", "rows": len(data), "mean": rate}


def _of_numbers(numbers: np.ndarray) -> dict[str, Any]:
    known = numbers[~np.isnan(numbers)]
    if len(known) == 0:
        return {"missing_rate": 1.0 if numbers.size else None}
    quantiles = np.quantile(known, list(_LEVELS.values())).tolist()
    line = {"missing_rate": 1 - known.size / numbers.size, "mean": float(known.mean(dtype=np.float64))}
    return line | dict(zip(_LEVELS, quantiles, strict=True))


def _of_ids(feature: Feature, fitted: FittedSchema, data: EncodedData) -> dict[str, Any]:
    ids = data.column(feature.name)
    vocabulary = fitted.vocabulary_of(feature.name)
    missing = ids == (MISSING_KEY if feature.name in data.key_features else MISSING_ID)
    line: dict[str, Any] = {"distinct": len(np.unique(ids[~missing])), "missing_rate": _share(missing.sum(), len(ids))}
    if vocabulary is not None:
        line["vocabulary"] = len(vocabulary.keys)
        line["unseen_rate"] = _share(data.unseen[feature.name], len(ids))
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
