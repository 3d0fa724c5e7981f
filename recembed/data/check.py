"""The door of the data room: is each column of the schema there, in a type its kind can use?"""

import polars as pl

from recembed.data.columns import id_types
from recembed.errors import DataError, did_you_mean
from recembed.schema.feature import Schema

__all__ = ["check_columns"]


def check_columns(frame: pl.LazyFrame, schema: Schema, *, labels: bool = True) -> None:
    """Refuse a frame that lacks a column of ``schema`` or holds it in a type its kind cannot use.

    Args:
        frame: What will be read; only the types of its columns are looked at.
        schema: What the columns should be.
        labels: Whether the label columns must be there (not for prediction).

    Raises:
        DataError: a column is missing (the nearest is offered) or of another type.

    >>> check_columns(pl.LazyFrame({"user": [1]}), Schema.parse({"features": [{"name": "usr"}]}))
    Traceback (most recent call last):
    ...
    recembed.errors.DataError: feature 'usr': column 'usr' is not in the data; did you mean 'user'?
    """
    types = frame.collect_schema()
    id_types(types, schema, labels=labels)
    for label in schema.labels if labels else ():
        if not (types[label.source].is_numeric() or types[label.source] == pl.Boolean):
            raise DataError(
                f"label {label.name!r}: column {label.source!r} has type {types[label.source]}: expected 0/1 or numbers"
            )
    if schema.timestamp is not None:
        if schema.timestamp not in types:
            raise DataError(
                f"timestamp {schema.timestamp!r} is not in the data" + did_you_mean(schema.timestamp, types)
            )
        dtype = types[schema.timestamp]
        if not (dtype.is_numeric() or dtype.is_temporal() or dtype == pl.String):
            raise DataError(
                f"timestamp {schema.timestamp!r} has type {dtype}: expected a number, a date or ISO text; cast the column"
            )
