"""Are probabilities true? Predictions against labels in bins of equal size.

Axes: ``N`` rows, ``K`` bins that hold rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from recembed.errors import ConfigError
from recembed.evaluation.checks import Floats, check_probabilities

__all__ = ["Reliability", "expected_calibration_error", "reliability"]


@dataclass(frozen=True, slots=True)
class Reliability:
    """The reliability table, one entry per bin by rising prediction.

    Shapes:
        rows, mean_prediction, mean_label: float64 ``[K]``.
    """

    rows: Floats
    mean_prediction: Floats
    mean_label: Floats


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> Reliability:
    """Cut the rows into ``bins`` quantiles of the prediction; equal predictions never part.

    Ties can leave bins without rows: those are left out, so the table may be shorter than ``bins``.

    Raises:
        ConfigError: ``bins`` is below 1.

    >>> reliability([0, 1, 1, 1], [0.25, 0.25, 0.5, 1.0], bins=2).mean_label.tolist()
    [0.5, 1.0]
    """
    if bins < 1:
        raise ConfigError(f"bins = {bins}: expected at least 1")
    y, p = check_probabilities(labels, probabilities)
    edges = np.unique(np.sort(p)[len(p) * np.arange(1, bins) // bins])  # the first value of each later bin
    index = np.searchsorted(edges, p, side="right")  # [N]
    rows = np.bincount(index, minlength=bins)
    held = rows > 0
    sizes = rows[held].astype(np.float64)  # [K]
    predicted = np.bincount(index, weights=p, minlength=bins)[held] / sizes
    observed = np.bincount(index, weights=y, minlength=bins)[held] / sizes
    return Reliability(sizes, predicted, observed)


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> float:
    """Return ``Σ_k n_k/N · |mean label_k - mean prediction_k|`` over quantile bins.

    Reference:
        Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
        Differs from the paper: bins of equal size, not of equal width.

    >>> expected_calibration_error([0, 1, 1, 1], [0.25, 0.25, 0.5, 1.0], bins=2)
    0.25
    """
    table = reliability(labels, probabilities, bins)
    gaps = np.abs(table.mean_label - table.mean_prediction)
    return float(gaps @ table.rows / table.rows.sum())
