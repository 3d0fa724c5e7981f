"""How well an order shuffles, by hand and of the windowed order."""

import numpy as np
import pytest

from recembed.data.order import RowOrder, order_quality


def test_quality_by_hand() -> None:
    found = order_quality(np.array([2, 0, 1]))
    # places -1 0 1 against rows 1 -1 0: -1 of 2; one step of two goes to the next row; distances 2 and 1, a third is 1
    assert found == {"rank_correlation": -0.5, "neighbours": 0.5, "spread": 1.5}
    assert order_quality(np.arange(9))["rank_correlation"] == pytest.approx(1)
    assert order_quality(np.arange(9)[::-1])["rank_correlation"] == pytest.approx(-1)


@pytest.mark.parametrize("window", [2560, 25_600, 100_000])
def test_the_windowed_order_is_far_from_that_of_the_file(window: int) -> None:
    rows = np.concatenate(list(RowOrder(100_000, shuffle=True, seed=3, window=window).batches(0, 1000)))
    found = order_quality(rows)
    assert abs(found["rank_correlation"]) < 0.1  # 256 blocks a window: about 1 / sqrt(number of blocks) at most
    assert found["neighbours"] < 0.01
    assert found["spread"] == pytest.approx(1, abs=0.1)
