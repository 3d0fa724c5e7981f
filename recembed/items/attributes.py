"""Attributes of items as codes: categories and bags become hashed ids, numbers stay numbers.

Codes depend on an item's own values alone, so a catalogue may grow after training: a value that comes later has an
(untrained) code of its own, and no old code moves.
Axes: ``N`` items, ``K`` codes per item, ``W`` numbers per item.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recembed.data.keys import normal_ids, to_keys
from recembed.errors import DataError
from recembed.hashing import hash_rows, salt
from recembed.items.faults import Faults
from recembed.items.settings import AttributeConfig

__all__ = ["AttributeCodes", "code_attributes"]

_MOST_VALUES = 64


@dataclass(frozen=True, eq=False)
class AttributeCodes:
    """What is known of each item.

    Attributes:
        codes: int32 ``[N, K]``, 1 .. buckets - 1, and 0 where there is none.
        weights: float32 ``[N, K]``: 1 for a category, ``1 / n`` for each of the ``n`` values of a bag, 0 for none.
        numbers: float32 ``[N, W]``, NaN where missing.
        present: bool ``[N]``, items of which anything is known.
        buckets: Number of codes.
    """

    codes: np.ndarray
    weights: np.ndarray
    numbers: np.ndarray
    present: np.ndarray
    buckets: int


def code_attributes(
    frame: pl.DataFrame, ids: pl.Series, attributes: tuple[AttributeConfig, ...], faults: Faults, buckets: int = 4096
) -> AttributeCodes:
    """Code the columns of a catalogue.

    Raises:
        DataError: a column is of a type that its kind cannot be.

    >>> frame = pl.DataFrame({"genres": ["a|b", None], "year": [1999, None]})
    >>> found = code_attributes(frame, pl.Series([1, 2]), (AttributeConfig(column="genres"),
    ...     AttributeConfig(column="year")), Faults())
    >>> found.weights.tolist(), found.numbers.tolist(), found.present.tolist()
    ([[0.5, 0.5], [0.0, 0.0]], [[1999.0], [nan]], [True, False])
    """
    codes, weights, numbers = [], [], []
    for attribute in attributes:
        column = frame[attribute.column]
        kind, separator = _kind(attribute, column)
        if kind == "numeric":
            numbers.append(_numbers(attribute, column, ids, faults))
            continue
        own, share = _codes(attribute.column, column, separator, jagged=kind == "bag", buckets=buckets)
        codes.append(own)
        weights.append(share)
    empty = np.zeros((frame.height, 0), np.float32)
    stacked = np.concatenate(codes, axis=1) if codes else empty.astype(np.int32)
    columns = np.stack(numbers, axis=1) if numbers else empty
    known = np.concatenate([stacked > 0, np.isfinite(columns)], axis=1)
    present: np.ndarray = known.sum(axis=1) > 0
    faults.lacking("attributes", "no attribute", ids.filter(pl.Series(~present)).to_list())
    return AttributeCodes(stacked, np.concatenate(weights, axis=1) if weights else empty, columns, present, buckets)


def _kind(attribute: AttributeConfig, column: pl.Series) -> tuple[str, str | None]:
    separator = attribute.separator
    text = column.dtype == pl.String
    if text and separator is None and attribute.kind in (None, "bag") and column.str.contains("|", literal=True).any():
        separator = "|"
    if attribute.kind is not None:
        return attribute.kind, separator or " "
    if column.dtype.is_numeric():
        return "numeric", None
    return ("bag" if separator or isinstance(column.dtype, pl.List | pl.Array) else "categorical"), separator


def _numbers(attribute: AttributeConfig, column: pl.Series, ids: pl.Series, faults: Faults) -> np.ndarray:
    values = column.cast(pl.Float32, strict=False)
    broken = values.is_null() & column.is_not_null()
    faults.broken("attributes", f"{attribute.column!r} is no number", ids.filter(broken).to_list())
    found = values.fill_null(float("nan")).to_numpy().copy()
    found[~np.isfinite(found)] = np.nan
    return found


def _codes(
    name: str, column: pl.Series, separator: str | None, *, jagged: bool, buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and weights, ``[N, K]`` each, of one column."""
    if jagged:
        lists = column.str.split(separator or " ") if column.dtype == pl.String else column
        if not isinstance(lists.dtype, pl.List | pl.Array):
            raise DataError(f"attributes: {name!r} has type {column.dtype}: expected lists or text for a bag")
        if isinstance(lists.dtype, pl.Array):
            lists = lists.cast(pl.List(lists.dtype.inner))
    else:
        lists = column.to_frame("v").select(pl.concat_list("v")).to_series()
    frame = pl.DataFrame({"row": np.arange(len(lists)), "value": lists}).explode("value", empty_as_null=True)
    if frame["value"].dtype == pl.String:
        frame = frame.with_columns(pl.col("value").str.strip_chars()).filter(pl.col("value") != "")
    frame = frame.drop_nulls().unique(maintain_order=True)
    keys = to_keys(normal_ids(frame["value"], name))
    hashed = hash_rows(keys, salt("attribute", name), buckets - 1) + 1
    rows = frame["row"].to_numpy()
    lengths = np.bincount(rows, minlength=len(lists))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    width = min(int(lengths.max(initial=1)), _MOST_VALUES)
    kept = place < width
    codes, weights = np.zeros((len(lists), max(width, 1)), np.int32), np.zeros((len(lists), max(width, 1)), np.float32)
    codes[rows[kept], place[kept]] = hashed[kept]
    weights[rows[kept], place[kept]] = 1 / np.minimum(lengths, width)[rows[kept]]
    return codes, weights
