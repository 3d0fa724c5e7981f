import numpy as np
import pytest

from recembed.errors import ConfigError
from recembed.evaluation import expected_calibration_error, reliability, sigmoid


def test_bins_by_hand() -> None:
    labels = [0, 0, 1, 0, 1, 1]
    probabilities = [0.1, 0.2, 0.3, 0.4, 0.5, 0.9]
    table = reliability(labels, probabilities, bins=3)
    assert table.rows.tolist() == [2, 2, 2]
    np.testing.assert_allclose(table.mean_prediction, [0.15, 0.35, 0.7])
    assert table.mean_label.tolist() == [0.0, 0.5, 1.0]
    assert expected_calibration_error(labels, probabilities, bins=3) == pytest.approx((0.15 + 0.15 + 0.3) / 3)


def test_equal_predictions_stay_together_in_any_row_order() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    probabilities = generator.integers(0, 4, 200) / 4
    shuffled = generator.permutation(200)
    table = reliability(labels, probabilities, bins=10)
    again = reliability(labels[shuffled], probabilities[shuffled], bins=10)
    assert table.mean_prediction.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert table.rows.tolist() == again.rows.tolist()
    np.testing.assert_allclose(table.mean_label, again.mean_label)


def test_more_bins_than_rows_and_one_prediction() -> None:
    assert reliability([0, 1], [0.2, 0.8], bins=10).rows.tolist() == [1, 1]
    assert reliability([0, 1, 1], [0.5, 0.5, 0.5], bins=4).rows.tolist() == [3]


def test_true_probabilities_have_a_small_error_and_sharpened_ones_do_not() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=50_000)
    labels = (generator.random(50_000) < sigmoid(logits)).astype(float)
    assert expected_calibration_error(labels, sigmoid(logits)) < 0.01
    assert expected_calibration_error(labels, sigmoid(3 * logits)) > 0.1


def test_bins_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="bins = 0: expected at least 1"):
        reliability([0, 1], [0.2, 0.8], bins=0)
