"""Full ranking: every user against all items, training items left out, in blocks of bounded memory.

``recall@k`` divides by all relevant items, also where they are more than ``k``. ``ndcg@k`` has the common definition,
whose ideal list holds ``min(k, relevant)`` hits; the NGCF code divides by the best order of what was retrieved
instead, which is ``ndcg_retrieved@k`` here and always the greater. Scores are ranked as they are: a sigmoid in float32
makes ties. Axes: ``U`` users, ``I`` items, ``D`` width, ``B`` users of a block, ``K`` items ranked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recembed.errors import ConfigError, DataError
from recembed.evaluation.intervals import Interval, bootstrap
from recembed.evaluation.top_items import CHUNK, top_items
from recembed.evaluation.user_items import UserItems

__all__ = ["RankingResult", "evaluate_ranking", "rank_items", "ranking_metrics"]

Score = Callable[[Tensor, Tensor], Tensor]
"""Users ``[B, D]`` and items ``[I, D]`` to scores ``[B, I]``, higher is better."""

_MEASURES = ("recall", "ndcg", "ndcg_retrieved", "precision", "hit_rate", "mrr")


@dataclass(frozen=True)
class RankingResult:
    """What a full ranking came to.

    Attributes:
        metrics: Means over the users by name (``recall@20``), and ``coverage@k``, the share of all items that are
            among the first ``k`` of some user.
        per_user: One row for each user: ``user``, ``relevant`` (its count of relevant items) and its metrics.
        skipped: Users without a relevant item, who are in no mean.
    """

    metrics: dict[str, float]
    per_user: pl.DataFrame
    skipped: int

    def interval(self, name: str, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
        """Return a metric with its bootstrap interval over users.

        Raises:
            ConfigError: ``name`` is no metric that users have.
        """
        if name not in self.metrics or name not in self.per_user.columns:
            known = ", ".join(column for column in self.per_user.columns if "@" in column)
            raise ConfigError(f"metric {name!r} has no values by user; expected one of: {known}")
        values = self.per_user[name].to_numpy()
        return bootstrap(
            lambda weights: float(values @ weights / weights.sum()),
            len(values),
            resamples=resamples,
            level=level,
            seed=seed,
        )


def evaluate_ranking(
    users: Tensor,
    items: Tensor,
    relevant: UserItems,
    *,
    seen: UserItems | None = None,
    k: Sequence[int] = (20,),
    block_users: int = 128,
    score: Score | None = None,
) -> RankingResult:
    """Rank all items for every user who has a relevant one.

    Args:
        users: Vectors of all users.
        items: Vectors of all items that can be recommended.
        relevant: What counts as a hit. Items beyond the vectors count as relevant, and are never hit.
        seen: Items to leave out of each user's list, those of the training.
        k: Lengths of the lists to judge.
        block_users: Users ranked at a time; memory is ``4 * block_users * I`` bytes.
        score: How vectors are compared; None takes the inner product.

    Shapes:
        users: float32 ``[U, D]``; items: float32 ``[I, D]``.

    Raises:
        ConfigError: a ``k`` below 1. DataError: a score is NaN, the shapes do not fit, or no user has a relevant item.

    >>> users, items = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0], [2.0, 9.0], [1.0, 0.0]])
    >>> relevant, seen = (UserItems([0], [item], num_users=1, num_items=3) for item in (2, 0))
    >>> evaluate_ranking(users, items, relevant, seen=seen, k=[1, 2]).metrics["mrr@2"]
    0.5
    """
    lengths = _checked_lengths(k)
    who = np.flatnonzero(relevant.counts)
    if not who.size:
        raise DataError("no user has a relevant item, so there is nothing to measure; check the split")
    top = rank_items(users, items, who, lengths[-1], seen=seen, block_users=block_users, score=score)
    columns = ranking_metrics(top, who, relevant, lengths)
    metrics = {name: float(values.mean()) for name, values in columns.items()}
    for length in lengths:
        shown = np.unique(top[:, :length])
        metrics[f"coverage@{length}"] = float((shown >= 0).sum() / len(items))
    frame = pl.DataFrame({"user": who, "relevant": relevant.counts[who], **columns})
    return RankingResult(metrics, frame, relevant.num_users - len(who))


@torch.no_grad()
def rank_items(
    users: Tensor,
    items: Tensor,
    which: NDArray[np.int64],
    k: int,
    *,
    seen: UserItems | None = None,
    block_users: int = 128,
    score: Score | None = None,
) -> NDArray[np.int64]:
    """Return the ``k`` best items of some users, best first, of equal scores the lower item first.

    Shapes:
        users: float32 ``[U, D]``; items: float32 ``[I, D]``; which: int64 ``[B]``. Returns int64 ``[B, k]``, ``-1``
        where no item is left.

    Raises:
        DataError: the widths differ, or a score is NaN.
    """
    if score is None and users.shape[1] != items.shape[1]:
        raise DataError(f"users are {users.shape[1]} wide and items {items.shape[1]}: expected one width")
    top = np.empty((len(which), k), dtype=np.int64)
    rows = min(block_users, len(which))
    memory = torch.full((rows, -(-len(items) // CHUNK) * CHUNK), float("-inf"))  # [B, I rounded up]
    for start in range(0, len(which), block_users):
        block = which[start : start + block_users]
        scores = memory[: len(block)]
        vectors = users[torch.from_numpy(block)]  # [B, D]
        if score is None:
            torch.mm(vectors, items.T, out=scores[:, : len(items)])
        else:
            scores[:, : len(items)] = score(vectors, items)
        if seen is not None:
            places, known = seen.block(block)
            listed = known < len(items)
            scores[torch.from_numpy(places[listed]), torch.from_numpy(known[listed])] = float("-inf")
        top[start : start + block_users] = top_items(scores, k).numpy()
    return top


def ranking_metrics(
    top: NDArray[np.int64], users: NDArray[np.int64], relevant: UserItems, k: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Return the metrics of each ranked list, float64 ``[B]`` by name.

    Shapes:
        top: int64 ``[B, K]``, best first, ``-1`` where there is no item; users: int64 ``[B]``, each with a relevant
        item.
    """
    hits = relevant.contains(users[:, None], top)  # [B, K]
    wanted = relevant.counts[users]  # [B]
    discounts = 1 / np.log2(np.arange(2, top.shape[1] + 2))  # [K]
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])  # [K + 1]
    found: dict[str, NDArray[np.float64]] = {}
    for length in k:
        inside = hits[:, :length]
        count = inside.sum(axis=1)  # [B]
        gain = inside @ discounts[:length]  # [B]
        first = np.where(count > 0, inside.argmax(axis=1) + 1, np.inf)  # [B]
        values = (
            count / wanted,
            gain / ideal[np.minimum(wanted, length)],
            gain / np.where(count > 0, ideal[count], 1.0),
            count / length,
            (count > 0).astype(np.float64),
            1 / first,
        )
        found |= {f"{name}@{length}": value for name, value in zip(_MEASURES, values, strict=True)}
    return found


def _checked_lengths(k: Sequence[int]) -> list[int]:
    lengths = sorted(set(k))
    if not lengths or lengths[0] < 1:
        raise ConfigError(f"k = {list(k)}: expected lengths of at least 1, such as [10, 20]")
    return lengths
