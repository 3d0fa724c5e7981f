"""How well a retrieval run finds items that its training never saw, which content alone can recommend.

Axes: ``I`` items of the graph, ``J`` items of the test, which may have more; ``P`` test interactions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recembed.evaluation import RankingResult, UserItems, evaluate_ranking
from recembed.retrieval import RetrievalTrainer
from recembed.run.retrieval_data import RetrievalData

__all__ = ["new_item_metrics"]


def new_item_metrics(
    trainer: RetrievalTrainer, data: RetrievalData, also_seen: UserItems | None
) -> dict[str, Any] | None:
    """Judge the test interactions with items that have no training interaction.

    Returns:
        Their number, and that of their ``items`` and ``users``; ``among_all``, where these items compete with every
        other, and ``among_new``, where they compete with one another: ``candidates``, metrics and their ``intervals``.
        None where the test has no such interaction; no ``among_new`` where no such item has a vector.
    """
    met, test, evaluation = trainer.train.item_counts > 0, data.test, data.config.evaluation
    beyond = test.num_items - len(met)
    asked = np.append(~met, np.full(beyond, True))[test.items]  # [P]
    if not asked.any():
        return None
    relevant = _only(test, asked, np.arange(test.num_items))
    found: dict[str, Any] = {
        "interactions": len(relevant),
        "items": len(np.unique(relevant.items)),
        "users": int((relevant.counts > 0).sum()),
    }
    among_all = trainer.measure(relevant, evaluation.k, also_seen=also_seen)
    found["among_all"] = {"candidates": len(met), **_told(among_all, evaluation.resamples)}
    own = np.flatnonzero(~met)
    if own.size:
        users, items = trainer.vectors()
        places = np.append(np.cumsum(~met) - 1, len(own) + np.arange(beyond))  # [J]
        among_new = evaluate_ranking(users, items[own], _only(test, asked, places), k=evaluation.k)
        found["among_new"] = {"candidates": len(own), **_told(among_new, evaluation.resamples)}
    return found


def _only(test: UserItems, asked: NDArray[np.bool_], places: NDArray[np.int64]) -> UserItems:
    """Return the interactions asked for, with the items numbered anew."""
    items = places[test.items[asked]]
    return UserItems(test.users[asked], items, num_users=test.num_users, num_items=int(places.max()) + 1)


def _told(result: RankingResult, resamples: int) -> dict[str, Any]:
    names = [name for name in result.metrics if name.startswith(("recall", "ndcg@"))]
    metrics: dict[str, Any] = {name: result.metrics[name] for name in names}
    if resamples and len(result.per_user) > 1:
        intervals = {name: result.interval(name, resamples=resamples) for name in names}
        metrics["intervals"] = {name: [found.low, found.high] for name, found in intervals.items()}
    return metrics
