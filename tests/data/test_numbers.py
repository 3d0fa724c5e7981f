"""Moments are exact and quantiles do not depend on how rows are cut, also when they come from a sample."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recembed.data.numbers import NumericSummary
from recembed.schema.fitted import NumericStats


def summarise(numbers: np.ndarray, block: int) -> NumericStats:
    summary = NumericSummary(numbers.shape[1])
    for low in range(0, len(numbers), block):
        summary.add(numbers[low : low + block].astype(np.float32))
    return summary.result(0, numbers.shape[1])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 400), st.integers(0, 99))
def test_a_sample_is_the_same_however_the_rows_are_cut(block: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).normal(5, 2, (1000, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["recembed.data.numbers"], "_SAMPLE_ROWS", 300)
        one, other = summarise(numbers, 1000), summarise(numbers, block)
    assert one.quantiles.tolist() == other.quantiles.tolist()
    assert one.quantiles[:, 128] == pytest.approx(np.median(numbers, axis=0), abs=0.5)
    assert one.quantiles[:, 0] == pytest.approx(numbers.min(0))  # the extremes are never lost
    assert one.quantiles[:, -1] == pytest.approx(numbers.max(0))
    assert (np.diff(one.quantiles, axis=1) >= 0).all()


def test_a_small_spread_around_a_large_mean_keeps_its_digits() -> None:
    numbers = np.tile([[2.0**23], [2.0**23 + 1]], (5000, 1))
    stats = summarise(numbers, 777)
    assert stats.mean == pytest.approx(2.0**23 + 0.5, rel=1e-15)
    assert stats.std == pytest.approx(0.5, rel=1e-9)


def test_columns_without_spread_or_values_can_still_be_standardised() -> None:
    numbers = np.array([[0.1, np.nan, -3], [0.1, np.nan, 4]])
    stats = summarise(numbers, 1)
    assert stats.std.tolist() == [1, 1, 3.5]
    assert stats.mean[1] == 0
    assert stats.missing_rate.tolist() == [0, 1, 0]
    assert stats.quantiles[1].tolist() == [0] * 257
    assert stats.log_mean[2] == pytest.approx((np.log(5) - np.log(4)) / 2)  # of -3 and 4: negatives keep their sign


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=600))
def test_quantiles_are_those_of_numpy(numbers: list[float]) -> None:
    column = np.array(numbers, np.float32)
    levels = np.quantile(column, np.linspace(0, 1, 257)).astype(np.float32)
    assert summarise(column[:, None], 600).quantiles[0].tolist() == np.maximum.accumulate(levels).tolist()
