import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from recembed.errors import ConfigError, DataError
from recembed.evaluation import UserItems, evaluate_ranking, rank_items, ranking_metrics
from recembed.evaluation.top_items import top_items


def planted(users: int = 40, items: int = 70) -> tuple[torch.Tensor, torch.Tensor, UserItems, UserItems]:
    """Vectors of small whole numbers, so that many scores tie, with training and test items; user 3 has no test item."""
    generator = np.random.default_rng(5)
    vectors = [torch.from_numpy(generator.integers(-2, 3, (n, 4)).astype(np.float32)) for n in (users, items)]
    kind = generator.choice(3, size=(users, items), p=[0.7, 0.2, 0.1])
    kind[3][kind[3] == 2] = 0
    seen, relevant = (UserItems(*np.nonzero(kind == what), num_users=users, num_items=items) for what in (1, 2))
    return vectors[0], vectors[1], seen, relevant


def slow_lists(users: torch.Tensor, items: torch.Tensor, seen: UserItems) -> list[list[int]]:
    """All unseen items of every user by python's stable sort."""
    scores = users.double().numpy() @ items.double().numpy().T
    return [
        sorted((i for i in range(len(items)) if i not in set(seen.of(u).tolist())), key=lambda i: -scores[u, i])
        for u in range(len(users))
    ]


def slow_metrics(ranked: list[int], wanted: set[int], k: int) -> dict[str, float]:
    """The definitions, one list and one item at a time."""
    places = [place for place, item in enumerate(ranked[:k], start=1) if item in wanted]
    gain = sum(1 / math.log2(place + 1) for place in places)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
    retrieved = sum(1 / math.log2(place + 1) for place in range(1, len(places) + 1))
    return {
        "recall": len(places) / len(wanted),
        "ndcg": gain / ideal,
        "ndcg_retrieved": gain / retrieved if places else 0.0,
        "precision": len(places) / k,
        "hit_rate": float(bool(places)),
        "mrr": 1 / places[0] if places else 0.0,
    }


@pytest.mark.parametrize("block_users", [1, 7, 1000])
def test_every_metric_is_that_of_lists_sorted_by_hand(block_users: int) -> None:
    users, items, seen, relevant = planted()
    found = evaluate_ranking(users, items, relevant, seen=seen, k=[5, 20], block_users=block_users)
    lists = slow_lists(users, items, seen)
    who = [u for u in range(40) if len(relevant.of(u))]
    assert found.skipped == 40 - len(who) > 0
    assert found.per_user["user"].to_list() == who
    for k in (5, 20):
        slow = [slow_metrics(lists[u], set(relevant.of(u).tolist()), k) for u in who]
        for name in slow[0]:
            assert found.per_user[f"{name}@{k}"].to_list() == pytest.approx([each[name] for each in slow])
            assert found.metrics[f"{name}@{k}"] == pytest.approx(sum(each[name] for each in slow) / len(who))
        shown = {item for u in who for item in lists[u][:k]}
        assert found.metrics[f"coverage@{k}"] == pytest.approx(len(shown) / 70)


def test_ndcg_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(30, 8, generator=generator), torch.randn(90, 8, generator=generator)
    hits = torch.rand(30, 90, generator=generator) < 0.15
    relevant = UserItems(*hits.nonzero().T.numpy(), num_users=30, num_items=90)
    for k in (1, 10, 50):
        theirs = ndcg_score(hits.numpy().astype(float), (users @ items.T).numpy(), k=k, ignore_ties=True)
        assert evaluate_ranking(users, items, relevant, k=[k]).metrics[f"ndcg@{k}"] == pytest.approx(theirs)


def test_the_two_ndcgs_of_hits_at_2_and_5() -> None:
    # gain 1/log2(3) + 1/log2(6) = 1.0178; ten ideal hits sum to 4.5436, two to 1 + 1/log2(3) = 1.6309
    relevant = UserItems([0] * 10, [1, 4, *range(20, 28)], num_users=1, num_items=40)
    found = ranking_metrics(np.arange(20)[None], np.array([0]), relevant, [20])
    assert found["ndcg@20"][0] == pytest.approx(0.224, abs=5e-4)
    assert found["ndcg_retrieved@20"][0] == pytest.approx(0.624, abs=5e-4)
    assert (found["recall@20"][0], found["precision@20"][0], found["mrr@20"][0]) == (0.2, 0.1, 0.5)


def test_equal_scores_go_by_item() -> None:
    seen = UserItems([0, 0], [0, 2], num_users=2, num_items=100)
    ranked = rank_items(torch.zeros(2, 3), torch.zeros(100, 3), np.array([0, 1]), 4, seen=seen)
    assert ranked.tolist() == [[1, 3, 4, 5], [0, 1, 2, 3]]


def test_scores_a_sigmoid_would_make_equal_keep_their_order() -> None:
    ranked = rank_items(torch.ones(1, 1), torch.tensor([[60.0], [90.0], [70.0]]), np.array([0]), 3)
    assert ranked.tolist() == [[1, 2, 0]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 45), st.integers(0, 2**31), st.sampled_from([1, 3, 1000]))
def test_top_items_is_a_stable_sort(chunks: int, k: int, seed: int, values: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(-values, values + 1, (3, chunks * 32)).astype(np.float32)
    scores[generator.random(scores.shape) < 0.2] = -np.inf
    scores[generator.random(scores.shape) < 0.1] = -0.0
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    ranked[np.take_along_axis(scores, ranked, axis=1) == -np.inf] = -1
    got = top_items(torch.from_numpy(scores), k).numpy()
    assert (got[:, : ranked.shape[1]] == ranked).all()
    assert (got[:, ranked.shape[1] :] == -1).all()


def test_a_user_who_has_seen_all_gets_nothing() -> None:
    seen = UserItems([0, 0, 0], [0, 1, 2], num_users=2, num_items=3)
    relevant = UserItems([0, 1], [1, 1], num_users=2, num_items=3)
    found = evaluate_ranking(torch.ones(2, 2), torch.ones(3, 2), relevant, seen=seen, k=[2])
    assert found.per_user["recall@2"].to_list() == [0.0, 1.0]
    assert found.metrics["coverage@2"] == pytest.approx(2 / 3)


def test_items_without_a_vector_count_as_relevant_and_are_never_hit() -> None:
    relevant = UserItems([0, 0], [1, 7], num_users=1, num_items=8)
    assert evaluate_ranking(torch.ones(1, 2), torch.ones(3, 2), relevant, k=[3]).metrics["recall@3"] == 0.5


def test_another_score_can_be_asked_for() -> None:
    users, items = torch.zeros(1, 2), torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    relevant = UserItems([0], [1], num_users=1, num_items=3)
    found = evaluate_ranking(users, items, relevant, k=[1], score=lambda u, i: -torch.cdist(u, i))
    assert found.metrics["recall@1"] == 1.0


def test_an_interval_is_over_users() -> None:
    users, items, seen, relevant = planted()
    found = evaluate_ranking(users, items, relevant, seen=seen)
    values = found.per_user["recall@20"].to_numpy()
    interval = found.interval("recall@20", resamples=2000)
    reach = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.value == pytest.approx(found.metrics["recall@20"])
    assert (interval.low, interval.high) == pytest.approx((interval.value - reach, interval.value + reach), abs=0.02)
    with pytest.raises(ConfigError, match=r"'coverage@20' has no values by user; expected one of: recall@20"):
        found.interval("coverage@20")


def test_bad_input_is_told() -> None:
    one = UserItems([0], [0], num_users=1, num_items=2)
    none = UserItems([], [], num_users=1, num_items=2)
    vectors = torch.ones(2, 2)
    with pytest.raises(DataError, match="no user has a relevant item"):
        evaluate_ranking(vectors[:1], vectors, none)
    with pytest.raises(ConfigError, match=r"k = \[0\]: expected lengths of at least 1"):
        evaluate_ranking(vectors[:1], vectors, one, k=[0])
    with pytest.raises(DataError, match="a score is NaN"):
        evaluate_ranking(vectors[:1], vectors * math.nan, one)
    with pytest.raises(DataError, match="users are 2 wide and items 3"):
        evaluate_ranking(vectors[:1], torch.ones(2, 3), one)


def test_gowalla_most_popular(real_data: Path) -> None:
    # 0.0416 and 0.0317 are the figures of published tables for ranking by popularity on this split
    train, test = (pl.read_parquet(real_data / "gowalla" / f"{part}.parquet") for part in ("train", "test"))
    seen, relevant = (
        UserItems(part["user_id"], part["item_id"], num_users=29858, num_items=40981) for part in (train, test)
    )
    items = torch.from_numpy(seen.item_counts).float()[:, None]
    found = evaluate_ranking(torch.ones(29858, 1), items, relevant, seen=seen)
    assert found.metrics["recall@20"] == pytest.approx(0.0416, abs=5e-5)
    assert found.metrics["ndcg@20"] == pytest.approx(0.0317, abs=5e-5)
    assert found.skipped == 0
