"""Is run B better than run A? Paired tests on the same rows.

Axes: ``N`` rows.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from recembed.evaluation.checks import Floats, check_groups, check_rows
from recembed.evaluation.intervals import auc_effects, auc_standard_error, check_level, standard_error
from recembed.evaluation.metrics import row_losses

__all__ = ["Comparison", "Difference", "compare"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two runs and the test that they differ.

    Attributes:
        a: The metric of the first run.
        b: The metric of the second run.
        difference: ``b - a``.
        standard_error: Of the difference, with the runs' correlation taken off.
        low: Lower end of the interval of the difference.
        high: Upper end.
        p_value: Two-sided, of the hypothesis that the difference is zero.
    """

    a: float
    b: float
    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of ``compare``: better is a positive AUC difference and a negative log loss difference."""

    auc: Difference
    log_loss: Difference
    rows: int


def compare(
    labels: ArrayLike,
    logits_a: ArrayLike,
    logits_b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> Comparison:
    """Compare two runs that scored the same rows in the same order.

    AUC: DeLong's test for two correlated curves. Log loss: the paired t test of the row losses. Both use the
    normal law, good from some hundred rows on. Rows of one user are alike: with ``groups`` (user ids) all rows of
    a user count as one observation, without them the p-values of such data are too small.

    Shapes:
        labels, logits_a, logits_b, groups: ``[N]``.

    Raises:
        DataError: all labels are equal, shapes differ, or there are fewer than two rows of a class (or two groups).

    Reference:
        DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated ROC Curves,
        Biometrics 1988.

    >>> compare([0, 0, 1, 1], [0.0, 2.0, 1.0, 3.0], [0.0, 1.0, 2.0, 3.0]).auc.difference
    0.25
    """
    y, a = check_rows(labels, logits_a, "logits_a")
    _, b = check_rows(y, logits_b, "logits_b")
    value_a, effects_a = auc_effects(y, a)
    value_b, effects_b = auc_effects(y, b)
    auc_error = auc_standard_error(y, effects_b - effects_a, groups)
    losses_a, losses_b = row_losses(y, a), row_losses(y, b)
    loss_error = _mean_error(losses_b - losses_a, groups)
    z = check_level(level)
    return Comparison(
        _difference(value_a, value_b, auc_error, z),
        _difference(float(losses_a.mean()), float(losses_b.mean()), loss_error, z),
        len(y),
    )


def _mean_error(values: Floats, groups: ArrayLike | None) -> float:
    """Return the standard error of the mean of float64 ``[N]`` values."""
    rows = len(values)
    units = np.arange(rows) if groups is None else check_groups(groups, rows)
    one_sample = np.zeros(int(units.max()) + 1, dtype=np.int64)
    return standard_error((values - values.mean()) / rows, units, one_sample)


def _difference(a: float, b: float, error: float, z: float) -> Difference:
    difference = b - a
    if error > 0:
        p_value = 2 * NormalDist().cdf(-abs(difference) / error)
    else:  # the runs differ by the same amount in every row, or not at all
        p_value = 1.0 if difference == 0 else 0.0
    return Difference(a, b, difference, error, difference - z * error, difference + z * error, p_value)
