"""Is one method better than another over several seeds and the same test rows?

Axes: ``S`` seeds, ``N`` test rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import ArrayLike

from recembed.evaluation.checks import check_groups, check_rows
from recembed.evaluation.intervals import auc_effects, auc_standard_error, standard_error
from recembed.evaluation.metrics import row_losses

__all__ = ["Effect", "Paired", "mean_and_std", "over_seeds", "paired", "student_p", "student_quantile"]

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference between two methods, its interval, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def p_text(self) -> str:
        """The p-value as it is shown; how far below a millionth it lies no test can tell.

        >>> Effect(0.1, 0.0, 0.2, 0.0412).p_text, Effect(0.1, 0.09, 0.11, 0.0).p_text
        ('0.041', '< 1e-06')
        """
        return f"{self.p_value:.2g}" if self.p_value >= 1e-6 else "< 1e-06"


@dataclass(frozen=True, slots=True)
class Paired:
    """The other method's metric minus the reference's, mean over the seeds.

    Attributes:
        seeds: What fresh seeds would change: Student's test of the differences, paired by seed. None with one seed.
        rows: What fresh test rows would change: DeLong's test (AUC) or the t test of row losses, on the mean of the
            seeds; rows of one user count as one observation.
    """

    seeds: Effect | None
    rows: Effect

    @property
    def best(self) -> Effect:
        """The test over seeds, or with one seed the test over rows."""
        return self.seeds or self.rows


def paired(
    labels: ArrayLike,
    reference: Sequence[ArrayLike],
    other: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
) -> tuple[Paired, Paired]:
    """Compare two methods that scored the same rows with the same seeds; returns AUC and log loss.

    Args:
        labels: ``[N]``.
        reference: Logits ``[N]`` of each seed.
        other: Likewise, of the same seeds in the same order.
        groups: The user of each row, ``[N]``.

    Raises:
        DataError: all labels are equal, shapes differ, or there are fewer than two rows of a class (or two groups).
    """
    aucs, losses, auc_row_effects, loss_row_effects = [], [], [], []
    for a, b in zip(reference, other, strict=True):
        y, logits_a = check_rows(labels, a, "reference")
        _, logits_b = check_rows(y, b, "other")
        (auc_a, effects_a), (auc_b, effects_b) = auc_effects(y, logits_a), auc_effects(y, logits_b)
        loss = row_losses(y, logits_b) - row_losses(y, logits_a)
        aucs.append(auc_b - auc_a)
        losses.append(float(loss.mean()))
        auc_row_effects.append(effects_b - effects_a)
        loss_row_effects.append((loss - loss.mean()) / len(y))
    auc_error = auc_standard_error(y, np.mean(auc_row_effects, axis=0), groups)
    units = np.arange(len(y)) if groups is None else check_groups(groups, len(y))
    loss_error = standard_error(np.mean(loss_row_effects, axis=0), units, np.zeros(int(units.max()) + 1, np.int64))
    return Paired(over_seeds(aucs), _normal(fmean(aucs), auc_error)), Paired(
        over_seeds(losses), _normal(fmean(losses), loss_error)
    )


def over_seeds(differences: Sequence[float]) -> Effect | None:
    """Return Student's paired test of the differences of ``S`` seeds, None for fewer than two.

    >>> effect = over_seeds([0.01, 0.02, 0.03])  # standard error 0.01 / sqrt(3), t = sqrt(12) with 2 degrees
    >>> round(effect.low, 4), round(effect.high, 4), round(effect.p_value, 4)
    (-0.0048, 0.0448, 0.0742)
    """
    if len(differences) < 2:
        return None
    mean, error = fmean(differences), stdev(differences) / math.sqrt(len(differences))
    degrees = len(differences) - 1
    reach = student_quantile(LEVEL, degrees) * error
    p_value = student_p(mean / error, degrees) if error else float(mean == 0)
    return Effect(mean, mean - reach, mean + reach, p_value)


def _normal(mean: float, error: float) -> Effect:
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    p_value = 2 * NormalDist().cdf(-abs(mean) / error) if error else float(mean == 0)
    return Effect(mean, mean - reach, mean + reach, p_value)


def student_p(t: float, degrees: int) -> float:
    """Return the two-sided p-value of ``t`` under Student's law, by its finite sum for whole degrees of freedom.

    Reference:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    >>> student_p(1.0, 1), round(student_p(2.0, 2), 6), round(student_p(2.776445, 4), 6)
    (0.5, 0.183503, 0.05)
    """
    angle = math.atan(abs(t) / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, degrees, 2):
        term *= square * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + (sine * total if degrees > 1 else 0.0)) if odd else sine * total
    return max(0.0, 1 - inside)


def student_quantile(level: float, degrees: int) -> float:
    """Return the ``t`` that leaves ``level`` between it and its negative.

    >>> round(student_quantile(0.95, 2), 4), round(student_quantile(0.95, 4), 4)
    (4.3027, 2.7764)
    """
    low, high = 0.0, 1.0
    while student_p(high, degrees) > 1 - level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, degrees) > 1 - level else (low, middle)
    return high


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation, None of one value.

    >>> mean_and_std([1.0, 2.0, 3.0]), mean_and_std([5.0])
    ((2.0, 1.0), (5.0, None))
    """
    return fmean(values), stdev(values) if len(values) > 1 else None
