"""FastRP: against dense powers, its randomness and its edges."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.graph import Adjacency, FastRP, InteractionGraph, load_graph, save_graph, streamed
from tests.graph.test_propagation import by_definition, random_graph


def whole(method: FastRP, graph: InteractionGraph) -> torch.Tensor:
    return torch.cat(method(graph))


@pytest.mark.parametrize("chunk", [7, 1 << 20])
@pytest.mark.parametrize("weighted", [False, True])
def test_streamed_products_are_products(chunk: int, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "_CHUNK", chunk)
    graph, vectors = random_graph(weighted=weighted), torch.randn(21, 3)
    expected = by_definition(graph, "none", False) @ vectors
    torch.testing.assert_close(streamed.streamed_product(graph.edges, vectors), expected)
    torch.testing.assert_close(streamed.degree_sums(graph.edges), by_definition(graph, "none", False).sum(1))


@pytest.mark.parametrize("beta", [0.0, -0.7])
def test_powers_of_the_transition_matrix(beta: float) -> None:
    graph, method = random_graph(), FastRP(embedding_dim=6, powers=(0, 0, 1), beta=beta, normalise=False)
    transition = by_definition(graph, "row", False)
    degrees = by_definition(graph, "none", False).sum(1)
    damping = torch.where(degrees > 0, degrees**beta, 0.0)[:, None]
    expected = torch.linalg.matrix_power(transition, 3) @ (damping * method.projection(21))
    torch.testing.assert_close(whole(method, graph), expected)


def test_weights_add_up_normalised_powers() -> None:
    graph = random_graph()
    parts = [whole(FastRP(embedding_dim=6, powers=powers), graph) for powers in ((1.0,), (0, 1.0))]
    torch.testing.assert_close(whole(FastRP(embedding_dim=6, powers=(2.0, 0.5)), graph), 2 * parts[0] + 0.5 * parts[1])


def test_the_projection_has_its_law() -> None:
    values, counts = FastRP(embedding_dim=64, seed=1).projection(2500).unique(return_counts=True)
    assert values.tolist() == pytest.approx([-(50**0.5), 0, 50**0.5])
    expected, draws = torch.tensor([0.01, 0.98, 0.01]), 2500 * 64
    assert ((counts / draws - expected).abs() < 4 * (expected * (1 - expected) / draws).sqrt()).all()


def test_inner_products_near_those_of_the_powers_and_nearer_with_the_width() -> None:
    graph = random_graph(60, 50, 400)
    power = torch.linalg.matrix_power(Adjacency(graph, "row").dense(), 2)
    errors = []
    for width in (64, 1024):
        vectors = whole(FastRP(embedding_dim=width, powers=(0, 1), beta=0, normalise=False), graph)
        errors.append((vectors @ vectors.T / width - power @ power.T).square().mean().sqrt().item())
    assert errors[1] < 0.4 * errors[0]  # a quarter, give or take
    assert errors[1] < 0.2 * (power @ power.T).square().mean().sqrt()


def test_seeds_and_isolated_nodes() -> None:
    graph = random_graph()
    first, again, other = (whole(FastRP(seed=seed, standardise=True), graph) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first[11] == 0).all() and (first[20] == 0).all() and first.isfinite().all()
    some = first[[*range(11), *range(12, 20)]]
    torch.testing.assert_close(some.mean(0), torch.zeros(64), atol=1e-5, rtol=0)


def test_a_graph_on_disk_is_read_from_there(tmp_path: Path) -> None:
    save_graph(random_graph(), tmp_path / "graph")
    mapped = load_graph(tmp_path / "graph", mapped=True)
    assert isinstance(mapped.edges.neighbours, np.memmap)
    assert torch.equal(whole(FastRP(), mapped), whole(FastRP(), random_graph()))


@pytest.mark.parametrize("options", [{"embedding_dim": 0}, {"powers": ()}, {"powers": (0.0,)}])
def test_settings_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected a width of at least 1 and a weight that is not 0"):
        FastRP(**options)(random_graph())  # type: ignore[arg-type]
