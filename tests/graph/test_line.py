"""LINE and its alias sampler: draws, gradients, and what each order brings together."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from recembed.errors import ConfigError, DataError, TrainingError
from recembed.graph import InteractionGraph, Line
from recembed.graph.alias import AliasSampler
from recembed.graph.line import edge_gradient, side_by_side

TWINS = InteractionGraph.of([0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [0, 1, 0, 1, 2, 3, 2, 3, 4, 5])
"""Users 0 and 1 have the same items, so have 2 and 3; user 4 has items of its own."""


def test_draws_follow_the_weights() -> None:
    weights = np.array([1.0, 0.0, 3.0, 0.5, 5.5])
    drawn = np.bincount(AliasSampler(weights).draw(50_000, np.random.default_rng(0)), minlength=5)
    assert drawn[1] == 0
    some = weights > 0
    assert chisquare(drawn[some], weights[some] / weights.sum() * 50_000).pvalue > 1e-3


def test_negatives_follow_the_degrees() -> None:
    degrees = np.array([1, 16, 81])
    drawn = np.bincount(AliasSampler(degrees**0.75).draw(70_000, np.random.default_rng(1)))
    assert chisquare(drawn, np.array([1, 8, 27]) / 36 * 70_000).pvalue > 1e-3


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [np.nan, 1.0]])
def test_weights_that_nothing_can_be_drawn_by_are_refused(weights: list[float]) -> None:
    with pytest.raises(DataError, match="expected finite numbers of 0 or above"):
        AliasSampler(np.array(weights))


def test_contexts_of_zero_pull_by_a_half() -> None:
    pull = edge_gradient(torch.randn(3, 4), torch.zeros(3, 6, 4))
    assert pull.tolist() == [[0.5, *[-0.5] * 5]] * 3


def test_scores_are_clipped() -> None:
    pull = edge_gradient(torch.tensor([[100.0]]), torch.tensor([[[1.0], [1.0]]]))
    assert pull[0].tolist() == pytest.approx([1 / (1 + np.exp(6)), -1 / (1 + np.exp(-6))], abs=1e-6)


def test_linked_nodes_score_higher_in_the_first_order() -> None:
    users, items = Line(embedding_dim=8, order=1, samples=12_000, learning_rate=0.1, batch_size=4)(TWINS)
    scores = users @ items.T
    linked = torch.zeros(5, 6, dtype=torch.bool)
    linked[TWINS.edges.rows, TWINS.edges.neighbours] = True
    assert scores[linked].min() > scores[~linked].max()


def test_nodes_with_the_same_neighbours_are_alike_in_the_second_order() -> None:
    users, _ = Line(embedding_dim=8, order=2, samples=12_000, learning_rate=0.1, batch_size=4)(TWINS)
    cosine = torch.nn.functional.normalize(users, dim=1)
    alike = cosine @ cosine.T
    twins = torch.stack([alike[0, 1], alike[2, 3]])
    others = torch.stack([alike[0, 2], alike[0, 3], alike[1, 4], alike[2, 4], alike[0, 4]])
    assert twins.min() > others.max() + 0.2


def test_a_seed_is_a_result_and_both_orders_stand_side_by_side() -> None:
    first, again, other = (Line(samples=500, seed=seed)(TWINS)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    both = side_by_side(first, 2 * other)
    assert both.shape == (5, 128)
    torch.testing.assert_close(both.square().sum(1), torch.full((5,), 2.0))


def test_heavy_edges_are_drawn_more() -> None:
    graph = InteractionGraph.of([0, 0], [0, 1], [1.0, 50.0])
    users, items = Line(embedding_dim=4, order=1, samples=5000, learning_rate=0.1, negatives=1, batch_size=2)(graph)
    assert (users @ items.T)[0].diff() > 0


@pytest.mark.parametrize("options", [{"order": 3}, {"samples": 0}, {"negatives": 0}, {"embedding_dim": 0}])
def test_settings_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} = .*expected"):
        Line(**options)(TWINS)  # type: ignore[arg-type]


def test_a_batch_too_large_for_the_graph_is_noticed() -> None:
    with pytest.raises(TrainingError, match="batches of 1000 move one node many times at once"):
        Line(samples=100_000, batch_size=1000, learning_rate=1.0, order=1)(TWINS)
