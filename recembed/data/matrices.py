"""Blocks of raw rows → matrices of numbers and labels."""

import numpy as np
import polars as pl

from recembed.data.columns import flat, number_column
from recembed.errors import DataError
from recembed.schema.feature import Feature, Label, Schema

__all__ = ["label_matrix", "numeric_matrix"]


def numeric_matrix(block: pl.DataFrame, schema: Schema) -> np.ndarray:
    """Return the numeric features, float32 ``[B, W]`` (column by column in memory), NaN where null or NaN.

    Raises:
        DataError: a number is infinite, or a vector has another width.
    """
    width = sum(feature.width for feature in schema.numeric)
    matrix = np.empty((width, block.height), np.float32).T
    types, start = block.schema, 0
    for feature in schema.numeric:
        part = matrix[:, start : start + feature.width]
        brought = number_column(feature.source)
        part[...] = block[brought].to_numpy()[:, None] if brought in types else _numbers(block, feature)
        infinite = np.count_nonzero(np.isinf(part))
        if infinite:
            raise DataError(
                f"feature {feature.name!r}: column {feature.source!r} holds {infinite} infinite (or beyond float32) "
                f"numbers in {block.height} rows; replace them by null (missing) or clip them"
            )
        start += feature.width
    return matrix


def _numbers(block: pl.DataFrame, feature: Feature) -> np.ndarray:
    column = block[feature.source]
    if not column.dtype.is_nested():
        return column.cast(pl.Float32).to_numpy()[:, None]
    lists = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
    lengths = lists.list.len()
    wrong = (lengths != feature.width).fill_null(False).arg_true()
    if len(wrong):
        raise DataError(
            f"feature {feature.name!r}: a row of column {feature.source!r} holds {lengths[int(wrong[0])]} numbers: "
            f"expected width = {feature.width}; pad the vectors or change the width"
        )
    matrix = np.full((block.height, feature.width), np.nan, np.float32)
    matrix[lengths.is_not_null().to_numpy()] = flat(lists).cast(pl.Float32).to_numpy().reshape(-1, feature.width)
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
    missing = column.null_count() + (len(column.filter(column.is_nan())) if column.dtype.is_float() else 0)
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
