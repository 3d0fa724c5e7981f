from statistics import NormalDist

import numpy as np
import pytest

from recembed.errors import ConfigError, DataError
from recembed.evaluation import auc, bootstrap, bootstrap_auc, delong_interval, log_loss

TRUE_AUC = NormalDist().cdf(1 / np.sqrt(2))  # positives N(1, 1), negatives N(0, 1)


def simulate(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(rows) < 0.4).astype(float)
    return labels, generator.normal(size=rows) + labels


def simulate_users(seed: int, users: int, rows_each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of noise and labels that belong to the user, as do the scores: AUC is 1/2, rows are far from independent."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(users), rows_each)
    labels = (np.arange(users) % 2)[owner].astype(float)
    scores = generator.normal(size=users)[owner] + 0.3 * generator.normal(size=users * rows_each)
    return labels, scores, owner


def slow_delong_error(labels: np.ndarray, scores: np.ndarray) -> float:
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    return float(np.sqrt(variance))


def test_bootstrap_of_the_mean_matches_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    got = bootstrap(lambda w: float(values @ w / w.sum()), 400, resamples=2000, level=0.9, seed=1)
    reach = 1.645 * values.std() / np.sqrt(400)
    assert got.value == pytest.approx(values.mean())
    assert got.low == pytest.approx(values.mean() - reach, abs=0.006)
    assert got.high == pytest.approx(values.mean() + reach, abs=0.006)


def test_bootstrap_takes_any_metric_and_repeats_under_one_seed() -> None:
    labels, logits = simulate(1, 300)

    def metric(weights: np.ndarray) -> float:
        return log_loss(labels, logits, weights)

    first = bootstrap(metric, 300, resamples=50, seed=4)
    assert first == bootstrap(metric, 300, resamples=50, seed=4)
    assert first != bootstrap(metric, 300, resamples=50, seed=5)
    assert first.value == pytest.approx(log_loss(labels, logits))
    assert first.low < first.value < first.high


def test_bootstrap_auc_is_the_bootstrap_of_auc() -> None:
    labels, scores = simulate(2, 200)
    scores = scores.round(1)
    slow = bootstrap(lambda w: auc(labels, scores, w), 200, resamples=40, seed=3)
    fast = bootstrap_auc(labels, scores, resamples=40, seed=3)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))


def test_whole_groups_are_drawn() -> None:
    groups = np.array([5, 5, 9, 9, 9])
    seen = []

    def metric(weights: np.ndarray) -> float:
        seen.append(weights)
        return float(weights.sum())

    bootstrap(metric, 5, groups=groups, resamples=30, seed=0)
    drawn = np.array(seen[:-1])  # the last call is the estimate itself
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 2] == drawn[:, 4]).all()
    assert (drawn[:, 0] + drawn[:, 2] == 2).all()
    assert len(np.unique(drawn[:, 0])) == 3


def test_resamples_without_a_value_are_left_out() -> None:
    got = bootstrap_auc([1, 0, 0], [1.0, 0.0, 2.0], resamples=200)  # 30 % of the resamples lack the positive
    assert np.isfinite([got.low, got.high]).all()
    with pytest.raises(DataError, match="undefined on all 10 resamples of 4 units"):
        bootstrap(lambda w: float("nan"), 4, resamples=10)


def test_row_intervals_cover_the_truth() -> None:
    hits = {"bootstrap": 0, "delong": 0}
    for seed in range(200):
        labels, scores = simulate(seed, 150)
        for name, interval in {
            "bootstrap": bootstrap_auc(labels, scores, resamples=200, level=0.9, seed=seed),
            "delong": delong_interval(labels, scores, level=0.9),
        }.items():
            hits[name] += interval.low <= TRUE_AUC <= interval.high
    assert 165 <= hits["bootstrap"] <= 193  # 180 expected, standard deviation 4.2
    assert 165 <= hits["delong"] <= 193


def test_grouped_intervals_cover_where_row_intervals_do_not() -> None:
    hits = {"rows": 0, "users": 0, "delong users": 0}
    for seed in range(100):
        labels, scores, owner = simulate_users(seed, 60, 10)
        for name, interval in {
            "rows": bootstrap_auc(labels, scores, resamples=100, level=0.9, seed=seed),
            "users": bootstrap_auc(labels, scores, groups=owner, resamples=100, level=0.9, seed=seed),
            "delong users": delong_interval(labels, scores, groups=owner, level=0.9),
        }.items():
            hits[name] += interval.low <= 0.5 <= interval.high
    assert hits["rows"] < 60
    assert 80 <= hits["users"] <= 98
    assert 80 <= hits["delong users"] <= 98


@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_delong_agrees_with_all_pairs(decimals: int) -> None:
    labels, scores = simulate(7, 120)
    scores = scores.round(decimals)
    got = delong_interval(labels, scores, level=0.95)
    assert got.value == pytest.approx(auc(labels, scores), abs=1e-12)
    assert (got.high - got.low) / 2 / NormalDist().inv_cdf(0.975) == pytest.approx(
        slow_delong_error(labels, scores), rel=1e-9
    )


def test_delong_at_a_perfect_ranking_has_no_width() -> None:
    got = delong_interval([0, 0, 1, 1], [0.0, 1.0, 2.0, 3.0])
    assert (got.value, got.low, got.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_levels_outside_0_to_1_are_refused(level: float) -> None:
    for interval in (bootstrap_auc, delong_interval):
        with pytest.raises(ConfigError, match=f"level = {level}: expected a share"):
            interval([0, 0, 1, 1], [0.0, 1.0, 2.0, 3.0], level=level)


def test_too_little_is_refused() -> None:
    with pytest.raises(ConfigError, match="resamples = 0: expected at least 1"):
        bootstrap_auc([0, 1], [0.0, 1.0], resamples=0)
    with pytest.raises(DataError, match="AUC is undefined: all labels are 1"):
        bootstrap_auc([1, 1], [0.0, 1.0])
    with pytest.raises(DataError, match="a sample of 1 unit has no variance"):
        delong_interval([0, 0, 1], [0.0, 1.0, 2.0])
    with pytest.raises(DataError, match="bootstrap of 1 unit: expected at least 2"):
        bootstrap_auc([0, 1], [0.0, 1.0], groups=["u", "u"])
