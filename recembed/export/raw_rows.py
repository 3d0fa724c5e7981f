"""Raw rows in whatever form a caller has them → a polars frame."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from recembed.errors import DataError

__all__ = ["Rows", "as_frame"]

Rows = Any
"""A polars or pandas frame, a dictionary of columns (or of single values), or a list with one dictionary per row."""


def as_frame(rows: Rows) -> pl.DataFrame:
    """Return ``rows`` as a frame.

    Raises:
        DataError: they are none of the known forms, or an empty list.

    >>> as_frame([{"user": 7, "price": None}, {"user": 8, "price": 2.5}]).schema
    Schema([('user', Int64), ('price', Float64)])
    """
    if isinstance(rows, pl.DataFrame):
        return rows
    if type(rows).__module__.split(".")[0] == "pandas" and hasattr(rows, "columns"):
        frame: pl.DataFrame = pl.from_pandas(rows)
        return frame.with_columns(_as_integers(column) for column in frame if column.dtype == pl.Float64)
    if isinstance(rows, Mapping):
        return pl.DataFrame({name: _as_column(values) for name, values in rows.items()})
    if isinstance(rows, Sequence) and rows and all(isinstance(row, Mapping) for row in rows):
        return pl.from_dicts(list(rows), infer_schema_length=None)
    raise DataError(
        f"rows = {type(rows).__name__}: expected a polars or pandas DataFrame, a dictionary of columns, "
        "or a list of dictionaries that is not empty"
    )


def _as_integers(column: pl.Series) -> pl.Series:
    """Undo what pandas does to whole numbers with gaps: it makes them floats, which no id is."""
    whole = column.null_count() > 0 and column.is_finite().all() and (column == column.round()).all()
    return column.cast(pl.Int64) if whole else column


def _as_column(values: Any) -> Any:
    return values if isinstance(values, Sequence | np.ndarray | pl.Series) and not isinstance(values, str) else [values]
