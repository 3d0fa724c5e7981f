"""Opens a bundle as an MLflow model: named in a logged model's ``MLmodel`` file and called by MLflow alone.

A logged model holds the bundle folder and the name of this module: no pickles, and no code beside recembed's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from recembed.errors import DataError

__all__ = ["ScoringModel"]


class _Scorer(Protocol):
    def score(self, rows: pl.DataFrame) -> np.ndarray: ...


class ScoringModel:
    """What ``mlflow.pyfunc.load_model`` wraps: raw rows in, scores out."""

    def __init__(self, scorer: _Scorer) -> None:
        self._scorer = scorer

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> np.ndarray:
        """Score raw rows.

        Args:
            rows: A polars or pandas frame, a dictionary of columns, or a list with one dictionary per row.
            params: Not used; MLflow passes it.

        Shapes:
            Returns float ``[N]``, one score per row.

        Raises:
            DataError: ``rows`` is none of these.
        """
        return self._scorer.score(_as_frame(rows))


def _as_frame(rows: Any) -> pl.DataFrame:
    if isinstance(rows, pl.DataFrame):
        return rows
    if type(rows).__module__.split(".")[0] == "pandas" and hasattr(rows, "columns"):
        frame: pl.DataFrame = pl.from_pandas(rows)
        return frame.with_columns(_as_integers(column) for column in frame if column.dtype == pl.Float64)
    if isinstance(rows, Mapping):
        return pl.DataFrame({name: _as_column(values) for name, values in rows.items()})
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        return pl.DataFrame(list(rows))
    raise DataError(
        f"rows = {type(rows).__name__}: expected a polars or pandas DataFrame, a dictionary of columns "
        "or a list of dictionaries"
    )


def _as_integers(column: pl.Series) -> pl.Series:
    """Undo what pandas does to whole numbers with gaps: it makes them floats, which no id is."""
    whole = column.null_count() > 0 and column.is_finite().all() and (column == column.round()).all()
    return column.cast(pl.Int64) if whole else column


def _as_column(values: Any) -> Any:
    return values if isinstance(values, Sequence | np.ndarray | pl.Series) and not isinstance(values, str) else [values]


def _load_pyfunc(data_path: str) -> ScoringModel:
    from recembed import serve  # after all other rooms

    return ScoringModel(serve.load(data_path))
