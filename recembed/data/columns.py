"""The door of the data room: checks a frame against the schema and cuts it into blocks of plain columns."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recembed.data.keys import hashed, key_column, key_type, normal_ids
from recembed.errors import DataError, did_you_mean
from recembed.schema.feature import Feature, Schema
from recembed.schema.fitted import KeyType

__all__ = ["BLOCK_ROWS", "JaggedIds", "blocks", "flat", "id_types", "ids", "jagged_ids", "number_column", "types_of"]

BLOCK_ROWS = 1 << 16
"""Rows read at a time."""


@dataclass(frozen=True)
class JaggedIds:
    """The ids of one bag or sequence feature in a block.

    Shapes:
        ids: Int64 or String ``[N]``; offsets: int64 ``[B + 1]``; weights: float32 ``[N]`` or None.
    """

    ids: pl.Series
    offsets: np.ndarray
    weights: np.ndarray | None = None


def types_of(frame: pl.LazyFrame) -> pl.Schema:
    """Return the column types.

    Raises:
        DataError: the file behind the frame cannot be read.
    """
    try:
        return frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> DataError:
    return DataError(f"cannot read the data: {(str(error).strip().splitlines() or [type(error).__name__])[0]}")


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
    plain = inner.is_numeric() or inner == pl.Boolean or inner == pl.Null
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
        if not isinstance(weights, pl.List | pl.Array) or not weights.inner.is_numeric():
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


def blocks(frame: pl.LazyFrame, schema: Schema, *, labels: bool) -> Iterator[pl.DataFrame]:
    """Yield the columns that the schema needs, ``BLOCK_ROWS`` rows at a time, in order; the last block is shorter.

    Text columns of categorical features bring their keys along (``key_column``), hashed while they are in the cache,
    and columns of single numbers come as float32 alone (``number_column``), NaN where they are null.

    Raises:
        DataError: the file behind the frame cannot be read to its end.
    """
    try:
        types = frame.collect_schema()
        scalar = dict.fromkeys(f.source for f in schema.numeric if not types[f.source].is_nested())
        numbers = [_number(name).alias(number_column(name)) for name in scalar]
        columns = dict.fromkeys(_columns(schema, labels, frozenset(scalar)))
        text = dict.fromkeys(f.source for f in schema.categorical if types[f.source] == pl.String)
        keys = [hashed(name).alias(key_column(name)) for name in text]
        yield from frame.select(*columns, *keys, *numbers).collect_batches(
            chunk_size=BLOCK_ROWS, maintain_order=True, engine="streaming"
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(error) from error


def number_column(column: str) -> str:
    """Return what the float32 numbers of a column are called where a block brings them along."""
    return f"\0numbers of {column}"


def _number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float32).fill_null(pl.lit(float("nan"), pl.Float32))


def _columns(schema: Schema, labels: bool, scalar: frozenset[str]) -> Iterator[str]:
    for feature in schema.features:
        if feature.kind != "numeric" or feature.source not in scalar:
            yield feature.source
        if feature.weights is not None:
            yield feature.weights
    if labels:
        yield from (label.source for label in schema.labels)


def ids(block: pl.DataFrame, feature: Feature) -> pl.Series:
    """Return the ids of a categorical feature, Int64 or String ``[B]``."""
    return normal_ids(block[feature.source], feature.source)


def jagged_ids(block: pl.DataFrame, feature: Feature, kind: KeyType) -> JaggedIds:
    """Return the ids of a bag or sequence: text split, long rows cut to their last ``max_length`` ids."""
    column = block[feature.source]
    lists = _split(column, feature, kind)
    weights = None if feature.weights is None else _weights(block[feature.weights], lists, feature)
    if feature.max_length is not None:
        lists = lists.list.tail(feature.max_length)
        weights = None if weights is None else weights.list.tail(feature.max_length)
    lengths = lists.list.len().fill_null(0).to_numpy()
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return JaggedIds(normal_ids(flat(lists), feature.source), offsets, None if weights is None else _floats(weights))


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


def flat(lists: pl.Series) -> pl.Series:
    """Return the elements of all lists; null lists and empty lists have none."""
    return lists.explode(empty_as_null=False, keep_nulls=False)


def _floats(weights: pl.Series) -> np.ndarray:
    numbers = flat(weights).cast(pl.Float32)
    if numbers.null_count() or not numbers.is_finite().all():
        raise DataError(f"column {weights.name!r}: weights must be finite numbers; drop or fill NaN, inf and null")
    return numbers.to_numpy()
