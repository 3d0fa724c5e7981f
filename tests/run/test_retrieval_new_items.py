"""Items that training never saw: among all items, and among one another, by hand."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from recembed.evaluation import RankingResult, UserItems, evaluate_ranking
from recembed.retrieval import RetrievalTrainer
from recembed.run.retrieval_config import RetrievalEvaluation
from recembed.run.retrieval_data import RetrievalData
from recembed.run.retrieval_new_items import new_item_metrics

USERS = torch.ones(2, 1)
ITEMS = torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]])  # items 2, 3 and 4 were never met


class Ranked:
    """Ranks by ``USERS`` and ``ITEMS``, as a trainer does."""

    def __init__(self, items: int) -> None:
        self.train = UserItems([0, 1], [0, 1], num_users=2, num_items=items)
        self.items = ITEMS[:items]

    def vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return USERS, self.items

    def measure(self, relevant: UserItems, k: tuple[int, ...], *, also_seen: UserItems | None = None) -> RankingResult:
        seen = self.train if also_seen is None else self.train.joined(also_seen)
        return evaluate_ranking(USERS, self.items, relevant, seen=seen, k=k)


def found(test: list[tuple[int, int]], items: int = 5, of_test: int = 5) -> dict[str, Any] | None:
    users, wanted = [user for user, _ in test], [item for _, item in test]
    part = UserItems(users, wanted, num_users=2, num_items=of_test)
    data = SimpleNamespace(test=part, config=SimpleNamespace(evaluation=RetrievalEvaluation(k=(1, 2), resamples=0)))
    return new_item_metrics(cast(RetrievalTrainer, Ranked(items)), cast(RetrievalData, data), None)


def test_new_items_compete_with_all_and_with_one_another() -> None:
    told = found([(0, 1), (0, 2), (1, 3)])
    assert told is not None
    assert (told["interactions"], told["items"], told["users"]) == (2, 2, 2)
    # User 0 sees 1, 2, …; user 1 sees 0, 2, …: item 2 is second for the one, item 3 third for the other.
    assert told["among_all"] == {
        "candidates": 5,
        "recall@1": 0.0,
        "ndcg@1": 0.0,
        "recall@2": 0.5,
        "ndcg@2": pytest.approx(0.5 * 0.63093, abs=1e-5),
    }
    assert told["among_new"]["candidates"] == 3
    assert (told["among_new"]["recall@1"], told["among_new"]["recall@2"]) == (0.5, 1.0)


def test_an_item_without_a_vector_is_never_found() -> None:
    told = found([(0, 2), (0, 6)], of_test=7)
    assert told is not None
    assert (told["interactions"], told["items"], told["users"]) == (2, 2, 1)
    assert told["among_new"]["recall@1"] == 0.5
    only = found([(1, 3)], items=2)
    assert only is not None
    assert "among_new" not in only
    assert only["among_all"]["recall@2"] == 0.0


def test_none_without_a_new_item_in_the_test() -> None:
    assert found([(0, 1), (1, 0)]) is None
