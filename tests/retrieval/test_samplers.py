import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from recembed.errors import DataError
from recembed.evaluation import UserItems
from recembed.retrieval import SAMPLERS, Hard, NegativeSampler, Popularity, SamplerConfig, Uniform
from recembed.retrieval.step import hardest


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.6, 0.95]), st.sampled_from(sorted(SAMPLERS)))
def test_a_training_positive_is_never_drawn(seed: int, density: float, kind: str) -> None:
    met = np.random.default_rng(seed).random((8, 12)) < density
    met[:, seed % 12] = False
    positives = UserItems(*np.nonzero(met), num_users=8, num_items=12)
    sampler = NegativeSampler(SAMPLERS[kind](kind=kind, negatives=5), positives, seed=seed)
    users = np.repeat(np.arange(8), 3)
    drawn = sampler.draw(users, 0)
    assert drawn.shape == (24, 16 if kind == "hard" else 5)
    assert not met[users[:, None], drawn].any()


@pytest.mark.parametrize(
    "config", [Uniform(negatives=4000), Popularity(negatives=4000, alpha=0.5)], ids=lambda c: c.kind
)
def test_items_are_drawn_as_often_as_they_should(config: SamplerConfig) -> None:
    met = np.array([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 0, 0]])
    sampler = NegativeSampler(config, UserItems(*np.nonzero(met), num_users=4, num_items=5), seed=1)
    weights = np.ones(5) if config.kind == "uniform" else np.sqrt([4, 2, 1, 1, 1])  # the item nobody met counts as 1
    assert sampler.probabilities == pytest.approx(weights / weights.sum())
    unmet = np.array([2, 3, 4])
    drawn = np.bincount(sampler.draw(np.array([0]), 0)[0], minlength=5)
    assert chisquare(drawn[unmet], 4000 * weights[unmet] / weights[unmet].sum()).pvalue > 0.001
    shared = np.bincount(sampler.draw_shared(0), minlength=5)
    assert chisquare(shared, 4000 * weights / weights.sum()).pvalue > 0.001


def test_a_step_has_its_own_draws_whatever_came_before() -> None:
    positives = UserItems([0, 1], [0, 1], num_users=2, num_items=1000)
    users = np.array([0, 1, 1])
    for config in (Uniform(negatives=4), Popularity(negatives=4)):
        first, second = (NegativeSampler(config, positives, seed=5) for _ in range(2))
        late = first.draw(users, 9)
        second.draw(users, 3)
        assert (second.draw(users, 9) == late).all()
        assert (second.draw(users, 10) != late).any()
        assert (NegativeSampler(config, positives, seed=6).draw(users, 9) != late).any()


def test_hard_takes_the_best_of_its_pool() -> None:
    users, pool = torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.tensor([[3.0, 5.0], [4.0, 0.0], [-9.0, -8.0]])
    chosen = hardest(users, pool.expand(2, 3, 2), 2)
    assert chosen.tolist() == [[[4.0, 0.0], [3.0, 5.0]], [[-9.0, -8.0], [4.0, 0.0]]]
    with pytest.raises(ValueError, match="pool = 3: expected at least the 4 negatives chosen from it"):
        Hard(pool=3, negatives=4)


@pytest.mark.parametrize(("pairs", "drawn"), [(4, 15), (40, 3)])  # by the users' items, by the items' users
def test_shared_negatives_that_a_user_has_met_are_found(pairs: int, drawn: int) -> None:
    generator = np.random.default_rng(2)
    met = generator.random((6, 20)) < 0.4
    sampler = NegativeSampler(Uniform(), UserItems(*np.nonzero(met), num_users=6, num_items=20), seed=0)
    users, shared = generator.integers(0, 6, pairs), generator.integers(0, 20, drawn)
    rows, columns = sampler.banned(users, shared)
    table = np.zeros((pairs, drawn), dtype=bool)
    table[rows, columns] = True
    assert (table == met[users][:, shared]).all()
    assert len(rows) == table.sum() > 0
    assert (np.diff(rows) >= 0).all()
    assert [len(part) for part in sampler.banned(users, shared[:0])] == [0, 0]


def test_a_user_who_has_met_all_has_no_negative() -> None:
    positives = UserItems([0, 0, 0, 1], [0, 1, 2, 1], num_users=2, num_items=3)
    sampler = NegativeSampler(Uniform(), positives, seed=0)
    assert sampler.users_without.tolist() == [0]
    with pytest.raises(DataError, match="user 0 has met all 3 items, so there is no negative; leave it out"):
        sampler.draw(np.array([1, 0]), 0)
