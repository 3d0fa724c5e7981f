"""How sure is a metric? Intervals by resampling (any metric) and by DeLong's formula (AUC).

Rows of one user are not independent: pass ``groups`` and whole users are resampled, or summed, together.
Axes: ``N`` rows, ``G`` groups.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recembed.errors import ConfigError, DataError
from recembed.evaluation.checks import Floats, check_groups, check_rows, need_both_classes
from recembed.evaluation.metrics import presorted_auc
from recembed.evaluation.ranking import Ranking

__all__ = [
    "Interval",
    "auc_effects",
    "auc_standard_error",
    "bootstrap",
    "bootstrap_auc",
    "check_level",
    "delong_interval",
    "standard_error",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap(
    metric: Callable[[Floats], float],
    rows: int,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of ``metric`` over resamples of the rows, or of whole groups.

    A resample is a vector of counts, how often each row was drawn, and the metric takes it as row weights:
    no row is ever copied. Resamples that leave the metric undefined are left out.

    Args:
        metric: float64 ``[N]`` row weights to a number; NaN or ``DataError`` where it is undefined.
        rows: ``N``.
        groups: The group of each row (user ids), ``[N]``, to draw whole groups.
        resamples: Number of resamples.
        level: Share of resamples inside the interval.
        seed: Same seed, same interval.

    Raises:
        ConfigError: ``resamples`` is below 1 or ``level`` is outside 0..1.
        DataError: the metric is undefined on all resamples, or there is one row (or group) only.
    Reference:
        Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 1979; Field and Welsh,
        Bootstrapping Clustered Data, JRSS B 2007 (whole groups).

    >>> values = np.array([1.0, 2.0, 3.0, 4.0])
    >>> bootstrap(lambda w: float(values @ w / w.sum()), 4, resamples=200).value
    2.5
    """
    check_level(level)
    if resamples < 1:
        raise ConfigError(f"resamples = {resamples}: expected at least 1; 200 give a fair interval")
    group = None if groups is None else check_groups(groups, rows)
    units = rows if group is None else int(group.max()) + 1
    if units < 2:
        raise DataError(f"bootstrap of {units} unit: expected at least 2 rows (or groups) to resample")
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        counts = np.bincount(generator.integers(0, units, units), minlength=units).astype(np.float64)
        values[i] = _value_or_nan(metric, counts if group is None else counts[group])
    values = values[~np.isnan(values)]
    if not values.size:
        raise DataError(f"the metric is undefined on all {resamples} resamples of {units} units; evaluate on more rows")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(metric(np.ones(rows)), float(low), float(high))


def bootstrap_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return ``bootstrap`` of the exact AUC; the rows are sorted once for all resamples.

    Raises:
        DataError: all labels are equal.
    """
    y, x = check_rows(labels, scores)
    need_both_classes("AUC", y.sum(), len(y) - y.sum())
    return bootstrap(presorted_auc(y, x), len(y), groups=groups, resamples=resamples, level=level, seed=seed)


def auc_effects(labels: Floats, scores: Floats) -> tuple[float, Floats]:
    """Return AUC and what each row contributes to its deviation from the true AUC, float64 ``[N]``.

    DeLong's structural components, centred: ``(V_i - AUC) / P`` for positives, ``(V_j - AUC) / N`` for negatives.

    Raises:
        DataError: all labels are equal.
    """
    positives = labels.sum()
    need_both_classes("AUC", positives, len(labels) - positives)
    shares = Ranking(labels, scores).placements()
    value = float(shares @ labels / positives)
    return value, (shares - value) / np.where(labels == 1, positives, len(labels) - positives)


def standard_error(effects: Floats, units: NDArray[np.int64], sampled: NDArray[np.int64]) -> float:
    """Return ``√Var(Σ effects)``: effects are summed in their unit, and units are independent.

    Each sample ``s`` of ``n_s`` units adds ``n_s/(n_s - 1) · Σ (effect of a unit)²``, as in a sample variance.

    Shapes:
        effects: float64 ``[N]``, of mean zero in each sample; units: int64 ``[N]``, the unit of each row;
        sampled: int64 ``[units]``, the sample of each unit.

    Raises:
        DataError: a sample has one unit only.
    """
    squares = np.square(np.bincount(units, weights=effects))
    sizes = np.bincount(sampled)
    if sizes.min() < 2:
        raise DataError(f"standard error: a sample of {sizes.min()} unit has no variance; expected at least 2 of each")
    return float(np.sqrt((np.bincount(sampled, weights=squares) * sizes / (sizes - 1)).sum()))


def auc_standard_error(labels: Floats, effects: Floats, groups: ArrayLike | None) -> float:
    """Return DeLong's standard error of effects (of one AUC, or of a difference of two) of the same rows.

    Without groups, positives and negatives are two samples of rows; with groups, groups are one sample.
    """
    if groups is None:
        return standard_error(effects, np.arange(len(labels)), labels.astype(np.int64))
    units = check_groups(groups, len(labels))
    return standard_error(effects, units, np.zeros(int(units.max()) + 1, dtype=np.int64))


def delong_interval(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """Return AUC with DeLong's interval, in O(N log N): one sort, no resampling.

    ``AUC ± z · √(S10/P + S01/N)``, cut to 0..1; at AUC 0 or 1 the formula gives an interval of no width.
    With ``groups`` the components are summed within each group first.

    Raises:
        DataError: all labels are equal, or fewer than two rows of a class, or than two groups.
    Reference:
        DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated ROC Curves,
        Biometrics 1988; Sun and Xu, Fast Implementation of DeLong's Algorithm, IEEE SPL 2014; Obuchowski,
        Nonparametric Analysis of Clustered ROC Curve Data, Biometrics 1997 (groups).

    >>> interval = delong_interval([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8])  # S10 = S01 = 1/8, standard error √(1/8)
    >>> interval.value, round(interval.low, 4), interval.high
    (0.75, 0.057, 1.0)
    """
    y, x = check_rows(labels, scores)
    value, effects = auc_effects(y, x)
    reach = check_level(level) * auc_standard_error(y, effects, groups)
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def check_level(level: float) -> float:
    """Return the normal quantile that leaves ``level`` between it and its negative.

    Raises:
        ConfigError: ``level`` is outside 0..1.

    >>> round(check_level(0.95), 4)
    1.96
    """
    if not 0 < level < 1:
        raise ConfigError(f"level = {level}: expected a share between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + level) / 2)


def _value_or_nan(metric: Callable[[Floats], float], weights: Floats) -> float:
    try:
        return metric(weights)
    except DataError:
        return float("nan")
