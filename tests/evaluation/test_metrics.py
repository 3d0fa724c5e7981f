import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn import metrics as sklearn_metrics

from recembed.errors import DataError
from recembed.evaluation import auc, brier, calibration, gauc, log_loss, normalised_entropy, rmse, sigmoid
from recembed.evaluation.metrics import presorted_auc

ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 3)), min_size=2, max_size=40)


def pairs_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    positive, negative = scores[labels == 1], scores[labels == 0]
    gaps = positive[:, None] - negative[None, :]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def both_classes(labels: np.ndarray) -> bool:
    return 0 < labels.sum() < len(labels)


def test_auc_by_hand() -> None:
    # positives 3 and 2 against negatives 1, 2, 4: 3 wins 2 of 3, 2 wins 1 and ties 1
    assert auc([1, 1, 0, 0, 0], [3.0, 2.0, 1.0, 2.0, 4.0]) == 3.5 / 6
    assert auc([0, 1], [0.0, 1.0]) == 1.0
    assert auc([0, 1], [1.0, 0.0]) == 0.0
    assert auc([0, 1, 0], [5.0, 5.0, 5.0]) == 0.5


@settings(deadline=None)
@given(ROWS)
def test_auc_is_the_share_of_pairs(rows: list[tuple[int, int, int]]) -> None:
    labels, scores, _ = np.array(rows).T
    if both_classes(labels):
        assert auc(labels, scores) == pytest.approx(pairs_auc(labels, scores), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 12])
def test_auc_agrees_with_sklearn(decimals: int) -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 5000)
    scores = (generator.normal(size=5000) + labels).round(decimals)
    weights = generator.random(5000)
    assert_allclose(auc(labels, scores), sklearn_metrics.roc_auc_score(labels, scores), rtol=1e-12)
    weighted = sklearn_metrics.roc_auc_score(labels, scores, sample_weight=weights)
    assert_allclose(auc(labels, scores, weights), weighted, rtol=1e-12)


@settings(deadline=None)
@given(ROWS)
def test_whole_weights_are_repeated_rows(rows: list[tuple[int, int, int]]) -> None:
    labels, scores, weights = np.array(rows).T
    repeated_labels, repeated_scores = labels.repeat(weights), scores.repeat(weights).astype(float)
    groups = np.arange(len(labels)) % 3
    if both_classes(repeated_labels):
        assert auc(labels, scores, weights) == pytest.approx(auc(repeated_labels, repeated_scores))
        for metric in (log_loss, normalised_entropy):
            assert metric(labels, scores, weights) == pytest.approx(metric(repeated_labels, repeated_scores))
        p, repeated_p = sigmoid(scores), sigmoid(repeated_scores)
        for metric in (calibration, brier, rmse):
            assert metric(labels, p, weights) == pytest.approx(metric(repeated_labels, repeated_p))
        try:
            expected = gauc(repeated_labels, repeated_scores, groups.repeat(weights))
        except DataError:
            return
        got = gauc(labels, scores, groups, weights)
        assert (got.used, got.dropped, got.rows) == (expected.used, expected.dropped, expected.rows)
        assert got.value == pytest.approx(expected.value)


def test_presorted_auc_is_nan_when_a_resample_has_one_class() -> None:
    under = presorted_auc([0, 1, 1], [0.0, 1.0, -1.0])
    assert under(np.array([1.0, 1.0, 0.0])) == 1.0
    assert np.isnan(under(np.array([0.0, 1.0, 2.0])))


def test_gauc_by_hand() -> None:
    labels = [1, 0, 1, 0, 0, 1, 0, 0]
    scores = [0.9, 0.1, 0.2, 0.5, 0.1, 0.7, 0.3, 0.3]
    users = np.array(["u", "u", "v", "v", "v", "all positive", "all negative", "all negative"], dtype=object)
    got = gauc(labels, scores, users)
    # u: AUC 1 on 2 rows; v: AUC 1/2 on 3 rows
    assert got.value == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    assert (got.used, got.dropped, got.rows) == (2, 2, 5.0)


def test_gauc_is_the_weighted_mean_of_the_users_aucs() -> None:
    generator = np.random.default_rng(2)
    users = generator.integers(-20, 20, 1000)
    labels = generator.integers(0, 2, 1000)
    labels[users == 3] = 1
    scores = generator.normal(size=1000).round(1)
    parts = [(labels[users == u], scores[users == u]) for u in np.unique(users)]
    kept = [(len(y), pairs_auc(y, x)) for y, x in parts if both_classes(y)]
    got = gauc(labels, scores, users)
    assert got.value == pytest.approx(sum(n * value for n, value in kept) / sum(n for n, _ in kept), abs=1e-12)
    assert (got.used, got.dropped) == (len(kept), len(parts) - len(kept))


def test_gauc_ignores_a_shift_of_one_user() -> None:
    labels, users = np.array([0, 1, 0, 1]), np.array([7, 7, 8, 8])
    scores = np.array([0.0, 1.0, 0.5, 2.0])
    shifted = scores + 100 * (users == 8)
    assert gauc(labels, scores, users) == gauc(labels, shifted, users)
    assert (auc(labels, scores), auc(labels, shifted)) == (1.0, 0.75)


def test_log_loss_by_hand_and_far_out() -> None:
    assert log_loss([1], [0.0]) == pytest.approx(np.log(2))
    assert log_loss([1, 0], [np.log(3), np.log(3)]) == pytest.approx((-np.log(0.75) - np.log(0.25)) / 2)
    assert log_loss([1, 0], [1e6, -1e6]) == 0.0
    assert log_loss([0, 1], [1e6, -1e6]) == 1e6
    assert log_loss([1], [np.inf]) == 0.0


def test_log_loss_agrees_with_sklearn() -> None:
    generator = np.random.default_rng(3)
    labels, logits = generator.integers(0, 2, 1000), generator.normal(size=1000) * 3
    expected = sklearn_metrics.log_loss(labels, sigmoid(logits))
    assert_allclose(log_loss(labels, logits), expected, rtol=1e-12)
    assert_allclose(brier(labels, sigmoid(logits)), sklearn_metrics.brier_score_loss(labels, sigmoid(logits)))


def test_normalised_entropy_of_the_base_rate_is_one() -> None:
    labels = np.array([1, 0, 0, 0, 0])
    base = np.log(0.2 / 0.8)
    assert normalised_entropy(labels, np.full(5, base)) == pytest.approx(1.0, abs=1e-12)
    sharper = base + np.where(labels == 1, 1.0, -1.0)
    assert normalised_entropy(labels, sharper) < 1 < normalised_entropy(labels, -sharper)


def test_calibration_and_squares_by_hand() -> None:
    assert calibration([1, 1, 0, 0], [0.5, 0.25, 0.25, 0.0]) == 0.5
    assert brier([1, 0], [0.5, 1.0]) == 0.625
    assert rmse([1, 0], [0.0, 1.0]) == 1.0


@pytest.mark.parametrize(("metric", "name"), [(auc, "AUC"), (normalised_entropy, "normalised entropy")])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused_by_its_label(metric: object, name: str, label: int) -> None:
    with pytest.raises(DataError, match=f"{name} is undefined: all labels are {label}"):
        metric([label] * 3, [0.1, 0.2, 0.3])


def test_calibration_without_positives_is_refused() -> None:
    with pytest.raises(DataError, match="calibration is undefined: all labels are 0"):
        calibration([0, 0], [0.1, 0.2])


def test_gauc_without_a_mixed_group_is_refused() -> None:
    with pytest.raises(DataError, match="none of 2 groups has both classes"):
        gauc([0, 0, 1], [0.1, 0.2, 0.3], [1, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0, 2], [0.1, 0.2]), r"labels: 2.0 in row 1: expected 0 or 1"),
        (([0, np.nan], [0.1, 0.2]), r"labels: nan in row 1"),
        (([0, 1, 1], [0.1, np.nan, np.nan]), r"scores: NaN in 2 of 3 rows \(first: row 1\)"),
        (([0, 1], [0.1]), r"labels \[2\] and scores \[1\]: expected two arrays of one shape"),
        (([[0, 1]], [[0.1, 0.2]]), r"labels \[1, 2\] and scores \[1, 2\]"),
        (([], []), "hold no rows"),
        (([0, 1], [0.1, 0.2], [1.0]), r"weights \[1\]: expected one weight for each of 2 rows"),
        (([0, 1], [0.1, 0.2], [2.0, -1.0]), "least value -1.0"),
        (([0, 1], [0.1, 0.2], [0.0, 0.0]), "sum 0.0"),
        (([0, 1], [0.1, 0.2], [np.nan, 1.0]), "least value nan"),
    ],
)
def test_bad_rows_are_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        auc(*arguments)


def test_groups_and_probabilities_are_checked() -> None:
    with pytest.raises(DataError, match=r"groups \[3\]: expected one group id for each of 2 rows"):
        gauc([0, 1], [0.1, 0.2], [1, 2, 3])
    with pytest.raises(DataError, match=r"probabilities: 1.5 is outside 0..1; pass sigmoid\(logits\)"):
        brier([0, 1], [0.5, 1.5])
    with pytest.raises(DataError, match=r"probabilities: -2.0 is outside 0..1"):
        calibration([0, 1], [0.5, -2.0])
