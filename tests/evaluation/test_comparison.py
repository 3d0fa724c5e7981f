import numpy as np
import pytest
from scipy import stats

from recembed.errors import DataError
from recembed.evaluation import auc, compare, log_loss


def two_runs(seed: int, rows: int, gain: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two runs that share most of their noise; the second has ``gain`` more signal."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(rows) < 0.5).astype(float)
    shared = generator.normal(size=rows)
    a, b = (labels * signal + shared + 0.5 * generator.normal(size=rows) for signal in (1.0, 1.0 + gain))
    return labels, a, b


def slow_delong_difference(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The covariance form of the paper: S = S10/P + S01/N, then the contrast (-1, 1)."""
    kernels = []
    for scores in (a, b):
        positive, negative = scores[labels == 1], scores[labels == 0]
        kernels.append((positive[:, None] > negative) + 0.5 * (positive[:, None] == negative))
    s10, s01 = (np.cov([kernel.mean(axis) for kernel in kernels]) for axis in (1, 0))
    covariance = s10 / kernels[0].shape[0] + s01 / kernels[0].shape[1]
    contrast = np.array([-1.0, 1.0])
    return float(np.sqrt(contrast @ covariance @ contrast))


@pytest.mark.parametrize("decimals", [1, 12])
def test_auc_test_agrees_with_all_pairs(decimals: int) -> None:
    labels, a, b = two_runs(0, 150, 0.3)
    a, b = a.round(decimals), b.round(decimals)
    got = compare(labels, a, b).auc
    error = slow_delong_difference(labels, a, b)
    assert (got.a, got.b) == pytest.approx((auc(labels, a), auc(labels, b)), abs=1e-12)
    assert got.difference == pytest.approx(auc(labels, b) - auc(labels, a), abs=1e-12)
    assert got.standard_error == pytest.approx(error, rel=1e-9)
    assert got.p_value == pytest.approx(2 * stats.norm.sf(abs(got.difference) / error), rel=1e-9)
    assert got.high - got.low == pytest.approx(2 * 1.959964 * error, rel=1e-6)


def test_log_loss_test_is_the_paired_t_test() -> None:
    labels, a, b = two_runs(1, 2000, 0.05)
    got = compare(labels, a, b)
    losses = [np.logaddexp(0, np.where(labels == 1, -x, x)) for x in (a, b)]
    expected = stats.ttest_rel(losses[1], losses[0])
    assert got.rows == 2000
    assert got.log_loss.difference == pytest.approx(log_loss(labels, b) - log_loss(labels, a), abs=1e-12)
    assert got.log_loss.difference / got.log_loss.standard_error == pytest.approx(expected.statistic, rel=1e-9)
    assert got.log_loss.p_value == pytest.approx(expected.pvalue, rel=0.02)


def test_pairing_sees_what_two_intervals_do_not() -> None:
    labels, a, _ = two_runs(2, 2000, 0.0)
    got = compare(labels, a, a + 0.1 * labels).auc
    assert got.p_value < 1e-6
    assert 0 < got.low < got.difference < got.high


def test_a_run_against_itself_does_not_differ() -> None:
    labels, a, _ = two_runs(3, 100, 0.0)
    got = compare(labels, a, a)
    for difference in (got.auc, got.log_loss):
        assert (difference.difference, difference.standard_error, difference.p_value) == (0.0, 0.0, 1.0)


def test_a_monotone_change_moves_log_loss_and_not_auc() -> None:
    labels, a, _ = two_runs(4, 500, 0.0)
    got = compare(labels, a, 4 * a)
    assert (got.auc.difference, got.auc.p_value) == (0.0, 1.0)
    assert got.log_loss.difference > 0
    assert got.log_loss.p_value < 1e-6


def test_swapping_the_runs_swaps_the_sign() -> None:
    labels, a, b = two_runs(5, 300, 0.2)
    forth, back = compare(labels, a, b), compare(labels, b, a)
    for one, other in ((forth.auc, back.auc), (forth.log_loss, back.log_loss)):
        assert one.difference == pytest.approx(-other.difference)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert one.p_value == pytest.approx(other.p_value)


def test_equal_runs_are_called_different_in_one_case_of_twenty() -> None:
    p_values = [compare(*two_runs(seed, 200, 0.0)).auc.p_value for seed in range(400)]
    assert 8 <= sum(p < 0.05 for p in p_values) <= 34  # 20 expected, standard deviation 4.4


def test_rows_repeated_by_their_user_add_no_evidence() -> None:
    labels, a, b = two_runs(6, 400, 0.05)
    users = np.arange(400)
    once = compare(labels, a, b, groups=users)
    often = compare(labels.repeat(9), a.repeat(9), b.repeat(9), groups=users.repeat(9))
    naive = compare(labels.repeat(9), a.repeat(9), b.repeat(9))
    for name in ("auc", "log_loss"):
        assert getattr(often, name).p_value == pytest.approx(getattr(once, name).p_value, rel=1e-6)
        assert getattr(naive, name).p_value < getattr(once, name).p_value
    assert once.log_loss == compare(labels, a, b).log_loss


def test_bad_runs_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels \[4\] and logits_b \[3\]"):
        compare([0, 0, 1, 1], [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
    with pytest.raises(DataError, match="AUC is undefined: all labels are 0"):
        compare([0, 0], [0.0, 1.0], [0.0, 2.0])
    with pytest.raises(DataError, match="a sample of 1 unit has no variance"):
        compare([0, 1], [0.0, 1.0], [0.0, 2.0], groups=["u", "u"])
