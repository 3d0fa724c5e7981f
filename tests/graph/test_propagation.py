"""The product with the adjacency: against dense matrices, forward and backward."""

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.graph import Adjacency, InteractionGraph
from recembed.graph.propagation import mean_of_powers, rows_of_mean_of_powers


def random_graph(users: int = 12, items: int = 9, edges: int = 40, *, weighted: bool = False) -> InteractionGraph:
    """The last user and the last item have no edge."""
    random = np.random.default_rng(3)
    pairs = random.integers(0, users - 1, edges), random.integers(0, items - 1, edges)
    weights = random.uniform(0.5, 2, edges) if weighted else None
    return InteractionGraph.of(*pairs, weights, num_users=users, num_items=items)


def biadjacency(graph: InteractionGraph) -> torch.Tensor:
    dense = torch.zeros(graph.num_users, graph.num_items)
    weights = 1.0 if graph.edges.weights is None else torch.from_numpy(graph.edges.weights)
    dense[graph.edges.rows, graph.edges.neighbours] = weights
    return dense


def by_definition(graph: InteractionGraph, normalisation: str, self_loops: bool) -> torch.Tensor:
    block, users = biadjacency(graph), graph.num_users
    matrix = torch.eye(graph.num_nodes) if self_loops else torch.zeros(graph.num_nodes, graph.num_nodes)
    matrix[:users, users:] = block
    matrix[users:, :users] = block.T
    degree = matrix.sum(1)
    inverse = torch.where(degree > 0, 1 / degree, 0.0)
    if normalisation == "row":
        return inverse[:, None] * matrix
    if normalisation == "symmetric":
        return inverse.sqrt()[:, None] * matrix * inverse.sqrt()
    return matrix


@pytest.mark.parametrize("normalisation", ["symmetric", "row", "none"])
@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_is_dense(normalisation: str, self_loops: bool, weighted: bool) -> None:
    graph = random_graph(weighted=weighted)
    adjacency = Adjacency(graph, normalisation, self_loops=self_loops)  # type: ignore[arg-type]
    dense = by_definition(graph, normalisation, self_loops)
    torch.testing.assert_close(adjacency.dense(), dense, atol=1e-6, rtol=0)
    vectors = torch.randn(graph.num_nodes, 5, requires_grad=True)
    gradient = torch.randn(graph.num_nodes, 5)
    product = adjacency(vectors)
    product.backward(gradient)
    torch.testing.assert_close(product, dense @ vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.grad, dense.T @ gradient, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("normalisation", ["symmetric", "row"])
def test_the_mean_of_powers_is_the_mean_of_powers(layers: int, normalisation: str) -> None:
    adjacency = Adjacency(random_graph(), normalisation)  # type: ignore[arg-type]
    dense = adjacency.dense()
    mean = sum(torch.linalg.matrix_power(dense, power) for power in range(layers + 1)) / (layers + 1)
    vectors = torch.randn(adjacency.num_nodes, 4, requires_grad=True)
    gradient = torch.randn(adjacency.num_nodes, 4)
    parts = adjacency.pointers, adjacency.neighbours, adjacency.weights, adjacency.transposed_weights
    got = mean_of_powers(vectors, *parts, layers)
    got.backward(gradient)
    torch.testing.assert_close(got, mean @ vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.grad, mean.T @ gradient, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("normalisation", ["symmetric", "row"])
@pytest.mark.parametrize("nodes", [[2, 0, 11, 20], list(range(21)), [11], []], ids=len)
def test_rows_of_the_mean_are_those_of_the_mean(layers: int, normalisation: str, nodes: list[int]) -> None:
    """Node 11 is a user without an edge, 20 an item without one."""
    adjacency = Adjacency(random_graph(), normalisation)  # type: ignore[arg-type]
    parts = adjacency.pointers, adjacency.neighbours, adjacency.weights, adjacency.transposed_weights
    which, start = torch.tensor(nodes, dtype=torch.int64), torch.randn(adjacency.num_nodes, 4)
    one, other = start.clone().requires_grad_(), start.clone().requires_grad_()
    got, expected = rows_of_mean_of_powers(one, which, *parts, layers), (mean_of_powers(other, *parts, layers), other)
    gradients = torch.randn(2, len(nodes), 4)
    torch.autograd.backward(got, list(gradients))
    torch.autograd.backward([each[which] for each in expected], list(gradients))
    for mine, whole in zip(got, expected, strict=True):
        assert torch.equal(mine, whole[which])
    torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=0)


def test_the_gradient_of_a_transposed_view_is_the_same() -> None:
    """A gradient that is not laid out row by row reaches the kernel as it should."""
    adjacency = Adjacency(random_graph())
    vectors = torch.randn(adjacency.num_nodes, 3, requires_grad=True)
    gradient = torch.randn(3, adjacency.num_nodes).T
    adjacency(vectors).backward(gradient)
    torch.testing.assert_close(vectors.grad, adjacency.dense().T @ gradient)


def test_weighted_degrees_by_hand() -> None:
    """One user, items of weight 1 and 3: the user's degree is 4, so the entries are 1/2 and sqrt(3)/2."""
    adjacency = Adjacency(InteractionGraph.of([0, 0], [0, 1], [1.0, 3.0]))
    assert adjacency.dense()[0].tolist() == pytest.approx([0, 0.5, 3**0.5 / 2])


@pytest.mark.parametrize("normalisation", ["symmetric", "row"])
def test_edge_dropout_keeps_the_expectation_and_the_pairs(normalisation: str) -> None:
    torch.manual_seed(0)
    adjacency = Adjacency(random_graph(), normalisation, self_loops=True)  # type: ignore[arg-type]
    dense, total, draws = adjacency.dense(), torch.zeros(21, 21), 4000
    for _ in range(draws):
        dropped = adjacency.drop_edges(0.25)
        assert dropped is not None
        adjacency.weights, kept = dropped[0], adjacency.weights
        total += adjacency.dense()
        adjacency.weights = kept
    assert (total / draws - dense).abs().max() < 4 * dense.max() * (0.25 / 0.75 / draws) ** 0.5
    matrix = total.new_zeros(21, 21)
    rows = torch.repeat_interleave(torch.arange(21), adjacency.pointers.diff())
    matrix[rows, adjacency.neighbours.long()] = dropped[0]
    assert ((matrix > 0) == (matrix > 0).T).all()  # an edge goes in both directions at once
    assert (0 < (matrix > 0).sum() < (dense > 0).sum()) and torch.equal(matrix.diagonal(), dense.diagonal())
    vectors = torch.randn(21, 2, requires_grad=True)
    gradient = torch.randn(21, 2)
    adjacency(vectors, dropped).backward(gradient)
    torch.testing.assert_close(vectors.grad, matrix.T @ gradient)
    assert adjacency.drop_edges(0.0) is None


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ConfigError, match="normalisation = 'column': expected symmetric, row or none"):
        Adjacency(random_graph(), "column")  # type: ignore[arg-type]
