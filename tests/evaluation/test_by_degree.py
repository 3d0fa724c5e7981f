import numpy as np
import polars as pl
import pytest

from recembed.errors import ConfigError
from recembed.evaluation import RankingResult, by_degree


def result(values: list[float], users: list[int]) -> RankingResult:
    return RankingResult({}, pl.DataFrame({"user": users, "recall@20": values}), 0)


def test_groups_are_even_and_their_means_are_those_of_their_users() -> None:
    counts = np.arange(100, 0, -1)  # user u has 100 - u interactions
    found = by_degree(result([u / 100 for u in range(100)], list(range(100))), counts, groups=4)
    assert found.select("least", "most", "users").rows() == [(1, 25, 25), (26, 50, 25), (51, 75, 25), (76, 100, 25)]
    assert found["value"].to_list() == pytest.approx([0.87, 0.62, 0.37, 0.12])
    # 25 equally spaced values: variance 0.01² · 25 · 26 / 12
    assert found["standard_error"].to_list() == pytest.approx([0.01 * np.sqrt(25 * 26 / 12 / 25)] * 4)


def test_users_of_one_count_stay_together_and_only_ranked_users_count() -> None:
    found = by_degree(result([1.0, 0.0, 0.5], [1, 3, 4]), [99, 2, 99, 2, 7], groups=3)
    assert found.select("least", "most", "users", "value").rows() == [(2, 2, 2, 0.5), (7, 7, 1, 0.5)]


def test_bad_input_is_told() -> None:
    with pytest.raises(ConfigError, match=r"metric 'recall@5' has no values by user; expected one of: recall@20"):
        by_degree(result([1.0], [0]), [1], "recall@5")
    with pytest.raises(ConfigError, match="groups = 0: expected at least 1"):
        by_degree(result([1.0], [0]), [1], groups=0)
