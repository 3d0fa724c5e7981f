"""Opens a bundle as an MLflow model: named in a logged model's ``MLmodel`` file and called by MLflow alone.

A logged model holds the bundle folder and the name of this module: no pickles, and no code beside recembed's.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

__all__ = ["ScoringModel"]


class _Scorer(Protocol):
    def score(self, rows: Any) -> np.ndarray: ...


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
        return self._scorer.score(rows)


def _load_pyfunc(data_path: str) -> ScoringModel:
    from recembed import serve  # after all other rooms

    return ScoringModel(serve.load(data_path))
