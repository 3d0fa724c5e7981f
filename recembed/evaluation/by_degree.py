"""Who is served well: a ranking metric by how much users had done in training."""

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from recembed.errors import ConfigError
from recembed.evaluation.full_ranking import RankingResult

__all__ = ["by_degree"]


def by_degree(
    result: RankingResult, interactions: ArrayLike, name: str = "recall@20", *, groups: int = 5
) -> pl.DataFrame:
    """Cut the users of a ranking into groups by their training interactions, as even as ties allow.

    Args:
        result: The ranking.
        interactions: Training interactions of every user, int64 ``[U]``.
        name: The metric.
        groups: Groups at most; users of equal count are in one group.

    Returns:
        ``least`` and ``most`` interactions of the group, ``users``, the mean ``value`` and its ``standard_error``.

    Raises:
        ConfigError: ``name`` is no metric that users have, or ``groups`` is below 1.

    >>> frame = pl.DataFrame({"user": [0, 1, 2], "recall@20": [0.0, 0.5, 1.0]})
    >>> by_degree(RankingResult({}, frame, 0), [1, 9, 9], groups=2).select("least", "most", "value").rows()
    [(1, 1, 0.0), (9, 9, 0.75)]
    """
    if groups < 1:
        raise ConfigError(f"groups = {groups}: expected at least 1")
    if name not in result.per_user.columns or "@" not in name:
        known = ", ".join(column for column in result.per_user.columns if "@" in column)
        raise ConfigError(f"metric {name!r} has no values by user; expected one of: {known}")
    counts = np.asarray(interactions)[result.per_user["user"].to_numpy()]
    edges = np.unique(np.quantile(counts, np.arange(1, groups) / groups, method="higher"))
    frame = pl.DataFrame(
        {"group": np.searchsorted(edges, counts, side="right"), "count": counts, "value": result.per_user[name]}
    )
    return (
        frame.group_by("group")
        .agg(
            pl.col("count").min().alias("least"),
            pl.col("count").max().alias("most"),
            pl.len().alias("users"),
            pl.col("value").mean(),
            (pl.col("value").std(ddof=1) / pl.len().sqrt()).alias("standard_error"),
        )
        .sort("group")
        .drop("group")
    )
