"""MAP per hop: exact cases, chance, and what must not change it."""

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError, DataError
from recembed.graph import Adjacency, InteractionGraph, hop_distances, reconstruction_map
from tests.graph.test_propagation import random_graph


def test_distances_of_a_chain() -> None:
    chain = InteractionGraph.of([0, 1, 1], [0, 0, 1])  # user 0 – item 0 – user 1 – item 1
    assert hop_distances(chain, np.array([0]), 3).tolist() == [[0, 2, 1, 3]]
    assert hop_distances(chain, np.array([0]), 2).tolist() == [[0, 2, 1, np.inf]]


def test_a_full_factorisation_of_the_adjacency_gives_the_graph_back() -> None:
    matrix = Adjacency(random_graph(), "none").dense()
    values, basis = torch.linalg.eigh(matrix)
    vectors = basis * (values - values.min() + 1).sqrt()  # inner products are the matrix beside the diagonal
    found = reconstruction_map(random_graph(), vectors)
    assert found[1] == pytest.approx(1.0) and found[2] < 0.9


def test_by_hand() -> None:
    """User 0 meets item 0 alone, of items 0, 1, 2; its scores rank item 1 first, item 0 second: precision 1/2."""
    graph = InteractionGraph.of([0], [0], num_items=3)
    vectors = torch.tensor([[1.0], [2.0], [3.0], [-1.0]])
    assert reconstruction_map(graph, vectors, most_hops=1, nodes=np.array([0])) == {1: 0.5}
    assert reconstruction_map(graph, vectors, most_hops=2, nodes=np.array([0]))[2] == 0.0  # nobody is two hops away


def test_random_vectors_are_no_better_than_chance_and_rotation_changes_nothing() -> None:
    torch.manual_seed(0)
    graph = random_graph(200, 200, 4000)
    density = 2 * graph.num_edges / 400**2
    vectors = torch.randn(400, 16)
    found = reconstruction_map(graph, vectors, cosine=True)
    assert abs(found[1] - density) < 0.3 * density
    turn, _ = torch.linalg.qr(torch.randn(16, 16))
    turned = reconstruction_map(graph, 3 * vectors @ turn, cosine=True)
    assert turned[1] == pytest.approx(found[1], abs=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="3 vectors for 21 nodes"):
        reconstruction_map(random_graph(), torch.ones(3, 2))
    with pytest.raises(ConfigError, match="most_hops = 0"):
        reconstruction_map(random_graph(), torch.ones(21, 2), most_hops=0)
