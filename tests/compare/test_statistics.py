"""The paired tests, by hand."""

import math

import numpy as np
import pytest

from recembed.compare.statistics import mean_and_std, over_seeds, paired, student_p, student_quantile
from recembed.errors import DataError
from recembed.evaluation import compare

# Two-sided 5 % and 1 % points of Student's law, from any table of it.
TABLE = [
    (1, 0.05, 12.7062),
    (2, 0.05, 4.3027),
    (3, 0.05, 3.1824),
    (4, 0.01, 4.6041),
    (7, 0.05, 2.3646),
    (30, 0.05, 2.0423),
]


@pytest.mark.parametrize(("degrees", "p", "t"), TABLE)
def test_student_matches_the_printed_tables(degrees: int, p: float, t: float) -> None:
    assert student_p(t, degrees) == pytest.approx(p, abs=1e-5)
    assert student_p(-t, degrees) == pytest.approx(p, abs=1e-5)
    assert student_quantile(1 - p, degrees) == pytest.approx(t, abs=1e-4)


def test_student_with_two_degrees_is_the_closed_formula() -> None:
    for t in (0.0, 0.5, 1.0, 3.0):  # p = 1 - t / sqrt(2 + t**2)
        assert student_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_over_seeds_by_hand() -> None:
    # mean 0.02, deviation 0.02, error 0.02 / sqrt(4) = 0.01, t = 2 with 3 degrees
    effect = over_seeds([0.0, 0.02, 0.04, 0.02 + 0.0])
    assert effect is not None
    deviation = math.sqrt((0.02**2 + 0.02**2) / 3)
    assert effect.difference == pytest.approx(0.02)
    assert effect.high - effect.difference == pytest.approx(3.1824 * deviation / 2, rel=1e-4)
    assert effect.p_value == pytest.approx(student_p(0.02 / (deviation / 2), 3))
    assert over_seeds([0.3]) is None


def test_equal_differences_have_no_doubt() -> None:
    same, none = over_seeds([0.01, 0.01]), over_seeds([0.0, 0.0])
    assert same is not None and none is not None
    assert (same.p_value, none.p_value) == (0.0, 1.0)
    assert same.low == same.high == 0.01


def test_mean_and_std() -> None:
    assert mean_and_std([0.7, 0.8, 0.9]) == pytest.approx((0.8, 0.1))
    assert mean_and_std([0.7]) == (0.7, None)


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.4).astype(np.float32)
    a, b = labels + rng.normal(0, 1.5, (3, 400)), labels + rng.normal(0, 1.0, (3, 400))
    return labels, a, b, rng.integers(0, 50, 400)


def test_one_seed_is_the_test_of_two_runs(rows: tuple[np.ndarray, ...]) -> None:
    labels, a, b, users = rows
    expected = compare(labels, a[0], b[0], groups=users)
    for own, theirs in zip(paired(labels, [a[0]], [b[0]], users), (expected.auc, expected.log_loss), strict=True):
        assert own.seeds is None
        assert own.best is own.rows
        assert own.rows.difference == pytest.approx(theirs.difference)
        assert own.rows.low == pytest.approx(theirs.low)
        assert own.rows.p_value == pytest.approx(theirs.p_value)


def test_several_seeds_average_differences_and_shrink_the_doubt_of_the_rows(rows: tuple[np.ndarray, ...]) -> None:
    labels, a, b, _ = rows
    auc, loss = paired(labels, list(a), list(b))
    single = [compare(labels, a[i], b[i]) for i in range(3)]
    assert auc.rows.difference == pytest.approx(np.mean([c.auc.difference for c in single]))
    assert auc.seeds is not None and auc.best is auc.seeds
    assert auc.seeds == over_seeds([c.auc.difference for c in single])
    assert loss.rows.difference == pytest.approx(np.mean([c.log_loss.difference for c in single]))
    assert auc.rows.high - auc.rows.low < min(c.auc.high - c.auc.low for c in single)


def test_the_same_scores_differ_in_nothing(rows: tuple[np.ndarray, ...]) -> None:
    labels, a, _, _ = rows
    auc, loss = paired(labels, list(a), list(a))
    assert auc.rows.difference == loss.rows.difference == 0
    assert auc.rows.p_value == loss.best.p_value == 1


def test_rows_of_one_class_have_no_test() -> None:
    with pytest.raises(DataError):
        paired([1, 1, 1], [[0.1, 0.2, 0.3]], [[0.1, 0.2, 0.3]])
