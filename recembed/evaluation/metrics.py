"""Metrics of binary predictions, exact, in NumPy on float64.

``scores`` may be logits or probabilities (only their order counts), ``logits`` and ``probabilities`` are what
they say. Every metric takes row ``weights``: integer weights stand for repeated rows, which is what a
bootstrap needs. Axes: ``N`` rows, ``G`` groups (users). Labels are 0 or 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from recembed.errors import DataError
from recembed.evaluation.checks import (
    Floats,
    check_groups,
    check_probabilities,
    check_rows,
    check_weights,
    need_both_classes,
)
from recembed.evaluation.ranking import Ranking

__all__ = [
    "GroupedAuc",
    "auc",
    "brier",
    "calibration",
    "gauc",
    "log_loss",
    "normalised_entropy",
    "presorted_auc",
    "rmse",
    "row_losses",
    "sigmoid",
]


@dataclass(frozen=True, slots=True)
class GroupedAuc:
    """The result of ``gauc``.

    Attributes:
        value: The weighted mean of the groups' AUCs.
        used: Groups with both classes.
        dropped: Groups with one class only, which have no AUC.
        rows: Rows (or weight) in the groups used.
    """

    value: float
    used: int
    dropped: int
    rows: float


def sigmoid(logits: ArrayLike) -> Floats:
    """Return ``1 / (1 + exp(-x))`` without overflow, float64 of the same shape.

    >>> sigmoid([-1000.0, 0.0, 1000.0]).tolist()
    [0.0, 0.5, 1.0]
    """
    x = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(x))  # in 0..1
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the area under the ROC curve: the share of (positive, negative) pairs in the right order.

    ``(Σ over positives of their rank - P(P + 1)/2) / (P · N)`` with tied scores sharing their mean rank, so a
    tied pair counts one half.

    Raises:
        DataError: all labels are equal.
    Reference:
        Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, Radiology 1982.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    y, x = check_rows(labels, scores)
    won, positives, negatives = Ranking(y, x).pairs(check_weights(weights, len(y)))
    need_both_classes("AUC", positives[0], negatives[0])
    return float(won[0] / (positives[0] * negatives[0]))


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None) -> GroupedAuc:
    """Return the AUC within each group (user), averaged with the groups' impressions as weights.

    ``Σ_g n_g AUC_g / Σ_g n_g``, ``n_g`` the rows of group ``g``; groups with one class are dropped and counted.

    Raises:
        DataError: no group has both classes.
    Reference:
        Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018.

    >>> gauc([0, 1, 1, 0, 0], [0.1, 0.9, 0.2, 0.3, 0.1], ["a", "a", "b", "b", "b"])
    GroupedAuc(value=0.7, used=2, dropped=0, rows=5.0)
    """
    y, x = check_rows(labels, scores)
    won, positives, negatives = Ranking(y, x, check_groups(groups, len(y))).pairs(check_weights(weights, len(y)))
    both = (positives > 0) & (negatives > 0)  # [G]
    present = positives + negatives > 0  # [G], a resample may leave a group without rows
    if not both.any():
        raise DataError(f"gAUC is undefined: none of {present.sum()} groups has both classes; group by another column")
    impressions = (positives + negatives)[both]
    values = won[both] / (positives[both] * negatives[both])
    mean = float(values @ impressions / impressions.sum())
    return GroupedAuc(mean, int(both.sum()), int((present & ~both).sum()), float(impressions.sum()))


def row_losses(labels: Floats, logits: Floats) -> Floats:
    """Return the log loss of each row, ``ln(1 + exp(∓x))``, float64 ``[N]``, finite for every finite logit."""
    return np.logaddexp(0.0, np.where(labels == 1, -logits, logits))


def presorted_auc(labels: ArrayLike, scores: ArrayLike) -> Callable[[Floats], float]:
    """Return ``weights -> AUC`` with the sort already done; NaN where a class has no weight.

    Shapes:
        weights: float64 ``[N]``, unchecked: this is the inner loop of a bootstrap.

    >>> presorted_auc([0, 0, 1], [0.1, 0.9, 0.5])(np.array([1.0, 3.0, 1.0]))
    0.25
    """
    y, x = check_rows(labels, scores)
    order = np.argsort(x)
    positive, negative = order[y[order] == 1], order[y[order] == 0]
    below = np.searchsorted(x[negative], x[positive], side="left")  # [P], negatives beaten
    below_or_tied = np.searchsorted(x[negative], x[positive], side="right")  # [P]

    def under(weights: Floats) -> float:
        positives = weights.take(positive)  # [P]
        negatives = np.zeros(len(negative) + 1)  # [M + 1], the weight of the first m negatives
        np.cumsum(weights.take(negative), out=negatives[1:])
        won = 0.5 * (positives @ negatives.take(below) + positives @ negatives.take(below_or_tied))
        pairs = positives.sum() * negatives[-1]
        return float(won / pairs) if pairs > 0 else float("nan")

    return under


def log_loss(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the mean of ``-y ln p - (1 - y) ln(1 - p)`` in nats, ``p = sigmoid(logit)``, never clipped.

    Reference:
        Good, Rational Decisions, Journal of the Royal Statistical Society B, 1952.

    >>> round(log_loss([1, 0], [0.0, -1000.0]), 6)
    0.346574
    """
    y, x = check_rows(labels, logits, "logits")
    return _mean(row_losses(y, x), check_weights(weights, len(y)))


def normalised_entropy(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return log loss divided by the log loss of always predicting the base rate; below 1 beats that.

    ``NE = log loss / -(r ln r + (1 - r) ln(1 - r))``, ``r`` the mean label of the rows given.

    Raises:
        DataError: all labels are equal, so the base rate has no entropy.
    Reference:
        He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014.

    >>> round(normalised_entropy([1, 0, 0, 0], [-np.log(3)] * 4), 12)
    1.0
    """
    y, x = check_rows(labels, logits, "logits")
    w = check_weights(weights, len(y))
    rate = _mean(y, w)
    need_both_classes("normalised entropy", rate, 1.0 - rate)
    entropy = -(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate))
    return float(_mean(row_losses(y, x), w) / entropy)


def calibration(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return mean prediction divided by mean label: 1 is calibrated, above 1 predicts too many positives.

    Raises:
        DataError: no label is 1.
    Reference:
        He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014.

    >>> calibration([1, 0, 0, 0], [0.5, 0.5, 0.25, 0.25])
    1.5
    """
    y, p = check_probabilities(labels, probabilities)
    w = check_weights(weights, len(y))
    rate = _mean(y, w)
    if rate == 0:
        raise DataError("calibration is undefined: all labels are 0; expected at least one row with label 1")
    return _mean(p, w) / rate


def brier(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the mean of ``(p - y)²``.

    Reference:
        Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 1950.

    >>> brier([1, 0], [0.5, 0.0])
    0.125
    """
    y, p = check_probabilities(labels, probabilities)
    return _mean(np.square(p - y), check_weights(weights, len(y)))


def rmse(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the root mean squared error, ``√brier``.

    >>> rmse([1, 0], [0.5, 0.5])
    0.5
    """
    return float(np.sqrt(brier(labels, probabilities, weights)))


def _mean(values: Floats, weights: Floats | None) -> float:
    return float(values.mean() if weights is None else values @ weights / weights.sum())
