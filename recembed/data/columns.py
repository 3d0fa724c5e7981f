"""The door of the data room: checks a frame against the schema and cuts it into blocks of plain columns."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recembed.data.keys import key_type, normal_ids
from recembed.errors import DataError, did_you_mean
from recembed.schema.feature import Feature, Label, Schema
from recembed.schema.fitted import KeyType

__all__ = ["BLOCK_ROWS", "IdColumn", "blocks", "id_column", "id_types", "label_matrix", "numeric_matrix"]

BLOCK_ROWS = 1 << 18
"""Rows read at a time."""


@dataclass(frozen=True)
class IdColumn:
    """The ids of one feature in a block: one a row, or, where ``offsets`` is given, any number a row.

    Shapes:
        ids: Int64 or String ``[N]``; offsets: int64 ``[B + 1]``; weights: float32 ``[N]``.
    """

    ids: pl.Series
    offsets: np.ndarray | None = None
    weights: np.ndarray | None = None


def id_types(types: pl.Schema, schema: Schema, *, labels: bool) -> dict[str, KeyType]:
    """Check that every column is there and every feature's of a fitting type; return the id types by feature.

    Raises:
        DataError: a column is missing or of another type, or features that share a vocabulary differ in type.
    """
    found: dict[str, KeyType] = {}
    for feature in schema.features:
        dtype = _type_of(feature.source, types, f"feature {feature.name!r}")
        if feature.kind == "numeric":
            _check_numeric(feature, dtype)
        elif not feature.jagged:
            found[feature.name] = key_type(dtype, feature.source)
        else:
            found[feature.name] = _jagged_key_type(feature, dtype, types, schema)
    for label in schema.labels if labels else ():
        _type_of(label.source, types, f"label {label.name!r}")
    for feature in schema.features:
        if feature.shares and found[feature.name] != found[feature.shares]:
            raise DataError(
                f"feature {feature.name!r} holds {found[feature.name]} ids, but {feature.shares!r}, whose vocabulary "
                f"it shares, holds {found[feature.shares]} ids; cast column {feature.source!r} to one type"
            )
    return found


def _type_of(column: str, types: pl.Schema, who: str) -> pl.DataType:
    if column not in types:
        raise DataError(f"{who}: column {column!r} is not in the data" + did_you_mean(column, types))
    return types[column]


def _is_list(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List | pl.Array)


def _check_numeric(feature: Feature, dtype: pl.DataType) -> None:
    vector = feature.width > 1 or _is_list(dtype)
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    plain = inner.is_numeric() or inner == pl.Boolean or inner == pl.Null  # type: ignore[attr-defined]
    if vector == _is_list(dtype) and plain:
        return
    expected = f"a list of {feature.width} numbers a row" if vector else "numbers"
    raise DataError(
        f"feature {feature.name!r}: column {feature.source!r} has type {dtype}: expected {expected}; "
        "cast the column, or change the feature's kind or width"
    )


def _jagged_key_type(feature: Feature, dtype: pl.DataType, types: pl.Schema, schema: Schema) -> KeyType:
    if feature.weights is not None:
        weights = _type_of(feature.weights, types, f"feature {feature.name!r}: weights")
        if not _is_list(weights) or not weights.inner.is_numeric():  # type: ignore[attr-defined]
            raise DataError(
                f"feature {feature.name!r}: weights column {feature.weights!r} has type {weights}: "
                "expected a list of numbers a row, as long as the row's list of ids"
            )
    if isinstance(dtype, pl.List | pl.Array):
        return key_type(dtype.inner, feature.source)  # type: ignore[arg-type]
    if dtype == pl.String and feature.separator is not None:
        return _owner_type(feature, types, schema)
    if dtype == pl.Null:
        return "int"
    raise DataError(
        f"feature {feature.name!r}: column {feature.source!r} has type {dtype}: expected a list of ids a row; "
        "for text cells set the feature's separator"
    )


def _owner_type(feature: Feature, types: pl.Schema, schema: Schema) -> KeyType:
    """Return the type of the ids in a text cell: strings, or integers where the shared vocabulary has integers."""
    if feature.shares is None or schema[feature.shares].separator is not None:
        return "string"
    dtype = _type_of(schema[feature.shares].source, types, f"feature {feature.shares!r}")
    return key_type(dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype)  # type: ignore[arg-type]


def blocks(frame: pl.LazyFrame, schema: Schema, *, labels: bool, rows: int = BLOCK_ROWS) -> Iterator[pl.DataFrame]:
    """Yield the columns that the schema needs, ``rows`` rows at a time, in order; the last block is shorter.

    Raises:
        DataError: the file behind the frame cannot be read to its end.
    """
    columns = list(dict.fromkeys(_columns(schema, labels)))
    try:
        yield from frame.select(columns).collect_batches(chunk_size=rows, maintain_order=True, engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"cannot read the data: {str(error).strip().splitlines()[0]}") from error


def _columns(schema: Schema, labels: bool) -> Iterator[str]:
    for feature in schema.features:
        yield feature.source
        if feature.weights is not None:
            yield feature.weights
    if labels:
        yield from (label.source for label in schema.labels)


def id_column(block: pl.DataFrame, feature: Feature, kind: KeyType) -> IdColumn:
    """Return the ids of ``feature``: separators split, long rows cut to their last ``max_length`` ids."""
    column = block[feature.source]
    if not feature.jagged:
        return IdColumn(normal_ids(column, feature.source))
    lists = _split(column, feature, kind)
    weights = None if feature.weights is None else _weights(block[feature.weights], lists, feature)
    if feature.max_length is not None:
        lists = lists.list.tail(feature.max_length)
        weights = None if weights is None else weights.list.tail(feature.max_length)
    lengths = lists.list.len().fill_null(0).to_numpy()
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return IdColumn(normal_ids(_flat(lists), feature.source), offsets, None if weights is None else _floats(weights))


def _split(column: pl.Series, feature: Feature, kind: KeyType) -> pl.Series:
    if column.dtype == pl.Null:
        return column.cast(pl.List(pl.Int64))
    if isinstance(column.dtype, pl.Array):
        return column.arr.to_list()
    if column.dtype != pl.String or feature.separator is None:
        return column
    lists = column.str.split(feature.separator).list.filter(pl.element() != "")
    try:
        return lists.cast(pl.List(pl.Int64)) if kind == "int" else lists
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"feature {feature.name!r}: column {feature.source!r} holds text that is no integer, but the vocabulary "
            f"of {feature.shares!r} holds int ids; cast {feature.shares!r} to strings"
        ) from error


def _weights(weights: pl.Series, lists: pl.Series, feature: Feature) -> pl.Series:
    weights = weights.arr.to_list() if isinstance(weights.dtype, pl.Array) else weights
    differ = (weights.list.len().fill_null(0) != lists.list.len().fill_null(0)).arg_true()
    if len(differ):
        row = int(differ[0])
        raise DataError(
            f"feature {feature.name!r}: row {row} of its block has {lists[row].len() if lists[row] is not None else 0} "
            f"ids but another number of weights in {feature.weights!r}; give one weight per id"
        )
    return weights


def _flat(lists: pl.Series) -> pl.Series:
    return lists.explode(empty_as_null=False, keep_nulls=False)


def _floats(weights: pl.Series) -> np.ndarray:
    flat = _flat(weights).cast(pl.Float32)
    if not flat.is_finite().all():
        raise DataError(f"column {weights.name!r}: weights must be finite numbers; drop or fill NaN, inf and null")
    return flat.to_numpy()


def numeric_matrix(block: pl.DataFrame, schema: Schema) -> np.ndarray:
    """Return the numeric features, float32 ``[B, W]``, NaN where null or NaN.

    Raises:
        DataError: a number is infinite, or a vector has another width.
    """
    width = sum(feature.width for feature in schema.numeric)
    matrix = np.empty((block.height, width), np.float32)
    start = 0
    for feature in schema.numeric:
        part = matrix[:, start : start + feature.width]
        part[...] = _vectors(block, feature) if feature.width > 1 else _scalars(block, feature)
        infinite = int(np.isinf(part).sum())
        if infinite:
            raise DataError(
                f"feature {feature.name!r}: column {feature.source!r} holds {infinite} infinite (or beyond float32) "
                f"numbers in {block.height} rows; replace them by null (missing) or clip them"
            )
        start += feature.width
    return matrix


def _scalars(block: pl.DataFrame, feature: Feature) -> np.ndarray:
    column = block[feature.source]
    if _is_list(column.dtype):
        return _vectors(block, feature)
    return column.cast(pl.Float32).to_numpy()[:, None]


def _vectors(block: pl.DataFrame, feature: Feature) -> np.ndarray:
    column = block[feature.source]
    lists = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
    lengths = lists.list.len()
    wrong = (lengths != feature.width).fill_null(False).arg_true()
    if len(wrong):
        raise DataError(
            f"feature {feature.name!r}: a row of column {feature.source!r} holds {lengths[int(wrong[0])]} numbers: "
            f"expected width = {feature.width}; pad the vectors or change the width"
        )
    matrix = np.full((block.height, feature.width), np.nan, np.float32)
    matrix[lengths.is_not_null().to_numpy()] = _flat(lists).cast(pl.Float32).to_numpy().reshape(-1, feature.width)
    return matrix


def label_matrix(block: pl.DataFrame, schema: Schema) -> np.ndarray:
    """Return the labels, float32 ``[B, L]`` of 0 and 1.

    Raises:
        DataError: a label is null, is not a number, or is neither 0 nor 1.
    """
    matrix = np.empty((block.height, len(schema.labels)), np.float32)
    for place, label in enumerate(schema.labels):
        matrix[:, place] = _label(_type_checked(block, label), label)
    return matrix


def _type_checked(block: pl.DataFrame, label: Label) -> pl.Series:
    column = block[label.source]
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise DataError(f"label {label.name!r}: column {label.source!r} has type {column.dtype}: expected 0/1 numbers")
    missing = int(column.is_null().sum() + (column.is_nan().sum() if column.dtype.is_float() else 0))
    if missing:
        raise DataError(
            f"label {label.name!r}: column {label.source!r} is missing (null or NaN) in {missing} of {block.height} "
            "rows; drop these rows before training"
        )
    return column


def _label(column: pl.Series, label: Label) -> np.ndarray:
    values = column.cast(pl.Float64).to_numpy()
    if label.positive_from is not None:
        return values >= label.positive_from
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if wrong.size:
        raise DataError(
            f"label {label.name!r}: value {values[wrong[0]]:g} in column {label.source!r} is neither 0 nor 1; "
            "for ratings or counts set the label's positive_from (value >= positive_from is 1)"
        )
    return values
