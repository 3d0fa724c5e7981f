"""The door of the evaluation: whatever comes in leaves as checked float64 arrays of one length ``N``."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recembed.errors import DataError

__all__ = ["Floats", "check_groups", "check_probabilities", "check_rows", "check_weights", "need_both_classes"]

Floats = NDArray[np.float64]


def check_rows(labels: ArrayLike, values: ArrayLike, name: str = "scores") -> tuple[Floats, Floats]:
    """Return labels and scores (or logits, or probabilities) as float64 ``[N]``.

    Raises:
        DataError: no rows, other shapes, a label that is not 0 or 1, or a NaN.
    """
    y, x = np.asarray(labels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if y.ndim != 1 or x.shape != y.shape:
        raise DataError(f"labels {list(y.shape)} and {name} {list(x.shape)}: expected two arrays of one shape [N]")
    if not y.size:
        raise DataError(f"labels and {name} hold no rows: expected at least one; check the split or the slice")
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if wrong.size:
        raise DataError(f"labels: {y[wrong[0]]} in row {wrong[0]}: expected 0 or 1; map the label column first")
    if np.isnan(x).any():
        row = int(np.flatnonzero(np.isnan(x))[0])
        raise DataError(f"{name}: NaN in {int(np.isnan(x).sum())} of {x.size} rows (first: row {row}); train again")
    return y, x


def check_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats]:
    """Return labels and probabilities as float64 ``[N]``.

    Raises:
        DataError: what ``check_rows`` refuses, or a value outside 0..1.
    """
    y, p = check_rows(labels, probabilities, "probabilities")
    if p.min() < 0 or p.max() > 1:
        worst = p.min() if p.min() < 0 else p.max()
        raise DataError(f"probabilities: {worst} is outside 0..1; pass sigmoid(logits)")
    return y, p


def check_weights(weights: ArrayLike | None, rows: int) -> Floats | None:
    """Return row weights as float64 ``[N]``, or None.

    Raises:
        DataError: another shape than ``[N]``, a negative weight or a sum of zero.
    """
    if weights is None:
        return None
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (rows,):
        raise DataError(f"weights {list(w.shape)}: expected one weight for each of {rows} rows")
    if not w.min() >= 0 or not w.sum() > 0:
        raise DataError(
            f"weights with least value {w.min()} and sum {w.sum()}: expected none below 0 and a sum above 0"
        )
    return w


def check_groups(groups: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Return the group of each row as int64 ``[N]`` numbers ``0 .. G-1`` (``groups`` may hold any sortable ids).

    Raises:
        DataError: another shape than ``[N]``.
    """
    ids = np.asarray(groups)
    if ids.shape != (rows,):
        raise DataError(f"groups {list(ids.shape)}: expected one group id for each of {rows} rows")
    return np.asarray(np.unique(ids, return_inverse=True)[1], dtype=np.int64)


def need_both_classes(metric: str, positives: float, negatives: float) -> None:
    """Refuse a metric that compares classes when one of them has no weight.

    Raises:
        DataError: all labels are equal; the message names the metric and the label.
    """
    if not positives > 0 or not negatives > 0:
        raise DataError(
            f"{metric} is undefined: all labels are {0 if positives == 0 else 1}; expected rows of both classes"
        )
