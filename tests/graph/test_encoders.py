"""LightGCN and NGCF: the properties that define them."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.graph import NGCF, GivenVectors, GraphEncoder, InteractionGraph, LightGCN, NodeVectors
from tests.graph.test_propagation import random_graph

ENCODERS: dict[str, Callable[..., GraphEncoder]] = {
    "mf": lambda graph, **more: LightGCN(graph, 4, 0, **more),
    "lightgcn": lambda graph, **more: LightGCN(graph, 4, 3, **more),
    "ngcf code": lambda graph, **more: NGCF(graph, 4, [4, 4, 4], **more),
    "ngcf row": lambda graph, **more: NGCF(graph, 4, [4, 4, 4], adjacency="row", **more),
    "ngcf paper": lambda graph, **more: NGCF(graph, 4, [4, 4, 4], form="paper", **more),
}
HOPS = {"mf": 0}


@pytest.fixture(params=ENCODERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def path(nodes: int) -> InteractionGraph:
    """A chain user 0 – item 0 – user 1 – item 1 – …, of ``nodes`` nodes."""
    steps = range(nodes - 1)
    return InteractionGraph.of([(step + 1) // 2 for step in steps], [step // 2 for step in steps])


def all_nodes(encoder: GraphEncoder) -> Tensor:
    return torch.cat(encoder.eval()())


def test_every_node_has_a_finite_vector_also_without_an_edge(kind: str) -> None:
    graph = random_graph()
    users, items = ENCODERS[kind](graph)()
    assert users.shape[0] == 12 and items.shape[0] == 9 and users.shape[1] == items.shape[1]
    assert users.isfinite().all() and items.isfinite().all()
    assert graph.edges.degrees[-1] == 0


def test_two_passes_agree_and_a_seed_is_a_model(kind: str) -> None:
    graph = random_graph()
    encoder = ENCODERS[kind](graph, seed=3)
    assert torch.equal(all_nodes(encoder), all_nodes(encoder))
    assert torch.equal(all_nodes(encoder), all_nodes(ENCODERS[kind](graph, seed=3)))
    assert not torch.equal(all_nodes(encoder), all_nodes(ENCODERS[kind](graph, seed=4)))


def test_another_order_of_the_nodes_is_another_order_of_the_vectors(kind: str) -> None:
    graph = random_graph()
    near = graph.for_locality()
    users, items = torch.tensor(near.user_ids.to_list()), torch.tensor(near.item_ids.to_list())
    base = torch.randn(21, 4)
    order = torch.cat([users, items + 12])
    assert order.tolist() != list(range(21))
    before = all_nodes(ENCODERS[kind](graph, base=GivenVectors(base)))
    after = all_nodes(ENCODERS[kind](near, base=GivenVectors(base[order])))
    torch.testing.assert_close(after, before[order])


def test_a_node_k_hops_away_counts_if_there_are_k_layers(kind: str) -> None:
    graph, base = path(8), torch.rand(8, 4) + 0.1
    hops = [0, 1, 2, 3, 4, 5, 6, 7]
    order = [hop // 2 + (4 if hop % 2 else 0) for hop in hops]  # the node at each hop from user 0
    before = all_nodes(ENCODERS[kind](graph, base=GivenVectors(base)))[0]
    changed = []
    for node in order:
        moved = base.clone()
        moved[node] += 1
        changed.append(not torch.equal(all_nodes(ENCODERS[kind](graph, base=GivenVectors(moved)))[0], before))
    assert changed == [hop <= HOPS.get(kind, 3) for hop in hops]


def test_every_parameter_and_every_neighbour_gets_a_gradient(kind: str) -> None:
    encoder = ENCODERS[kind](path(4)).train()
    users, _ = encoder()
    (users[0] * torch.arange(1.0, 1 + users.shape[1])).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    base = encoder.get_parameter("base.weight").grad
    assert base is not None
    assert (base != 0).any(1).tolist() == ([True, False, False, False] if kind == "mf" else [True] * 4)


def test_any_module_can_be_the_base(kind: str) -> None:
    graph, given = random_graph(), torch.randn(21, 7)
    encoder = ENCODERS[kind](graph, base=GivenVectors(given, 4))
    encoder()[0].sum().backward()
    gradient = encoder.get_parameter("base.projection.weight").grad
    assert gradient is not None and gradient.abs().sum() > 0
    assert not any(name.endswith("base.weight") for name, _ in encoder.named_parameters())


def test_the_graph_is_no_part_of_the_weights(kind: str) -> None:
    assert not any("adjacency" in name for name in ENCODERS[kind](random_graph()).state_dict())


def test_lightgcn_by_hand() -> None:
    """One user (vector 1) with items 2 and 4: one hop is 1/sqrt(2) of the sum; the mean of both layers."""
    graph = InteractionGraph.of([0, 0], [0, 1])
    users, items = LightGCN(graph, 1, 1, base=GivenVectors(torch.tensor([[1.0], [2.0], [4.0]])))()
    root = math.sqrt(2)
    assert users.tolist() == [pytest.approx([(1 + 6 / root) / 2])]
    assert items.flatten().tolist() == pytest.approx([(2 + 1 / root) / 2, (4 + 1 / root) / 2])


def test_lightgcn_is_linear_and_keeps_the_root_of_the_degree() -> None:
    graph = random_graph()
    base = torch.randn(21, 4)
    once, twice = (all_nodes(LightGCN(graph, 4, 3, base=GivenVectors(factor * base))) for factor in (1, 2))
    torch.testing.assert_close(twice, 2 * once)
    degree = torch.from_numpy(graph.edges.degrees), torch.from_numpy(graph.edges.column_degrees)
    root = torch.cat(degree).float().sqrt()[:, None].expand(-1, 2).contiguous()
    torch.testing.assert_close(all_nodes(LightGCN(graph, 2, 1, base=GivenVectors(root))), root)


def test_parameter_counts() -> None:
    def count(encoder: GraphEncoder) -> int:
        return sum(parameter.numel() for parameter in encoder.parameters())

    graph = random_graph()
    assert count(LightGCN(graph, 4, 3)) == 21 * 4
    assert count(NGCF(graph, 4, [4, 4])) == 21 * 4 + 2 * 2 * (4 * 4 + 4)
    assert count(NGCF(graph, 4, [4, 4], form="paper")) == 21 * 4 + 2 * 2 * 4 * 4


def test_ngcf_without_layers_is_matrix_factorisation() -> None:
    encoder = NGCF(random_graph(), 4, [])
    assert torch.equal(all_nodes(encoder), encoder.get_parameter("base.weight"))


@pytest.mark.parametrize("form", ["paper", "code"])
def test_ngcf_by_its_equations(form: str) -> None:
    graph, base = random_graph(), torch.randn(21, 4)
    encoder = NGCF(graph, 4, [3], form=form, base=GivenVectors(base), seed=1)  # type: ignore[arg-type]
    dense = encoder.adjacency.dense()
    sums, products = encoder.layers[0].sums, encoder.layers[0].products
    received = dense @ base
    if form == "paper":
        torch.testing.assert_close(dense, dense.T)
        mixed = (received + base) @ sums.weight.T + (received * base) @ products.weight.T
        layer = torch.where(mixed > 0, mixed, 0.2 * mixed)
    else:
        torch.testing.assert_close(dense.sum(1), torch.ones(21))
        sides = received @ sums.weight.T + sums.bias, (received * base) @ products.weight.T + products.bias
        layer = sum(torch.where(side > 0, side, 0.2 * side) for side in sides)  # type: ignore[assignment]
    torch.testing.assert_close(all_nodes(encoder)[:, 4:], layer / layer.norm(dim=1, keepdim=True).clamp(1e-12))


def test_layers_of_ngcf_have_unit_norm() -> None:
    encoder = NGCF(random_graph(), 4, [4, 3])
    assert encoder.embedding_dim == 11
    vectors = all_nodes(encoder)
    torch.testing.assert_close(vectors[:, 4:8].norm(dim=1), torch.ones(21))
    torch.testing.assert_close(vectors[:, 8:].norm(dim=1), torch.ones(21))


@pytest.mark.parametrize("options", [{"message_dropout": 0.5}, {"message_dropout": 0.0, "node_dropout": 0.5}])
def test_dropout_is_for_training(options: dict[str, float]) -> None:
    encoder = NGCF(random_graph(), 4, [4], **options)  # type: ignore[arg-type]
    assert not torch.equal(encoder.train()()[0], encoder()[0])
    assert torch.equal(encoder.eval()()[0], encoder()[0])
    light = LightGCN(random_graph(), 4, 2, edge_dropout=0.5)
    assert not torch.equal(light.train()()[0], light()[0])
    assert torch.equal(light.eval()()[0], light()[0])


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_the_vectors_of_a_batch_are_rows_of_the_whole(kind: str, shape: tuple[int, ...]) -> None:
    """Values, penalty and gradients, a node that is named twice included."""
    torch.manual_seed(0)
    users, positives = torch.tensor([3, 3]), torch.tensor([5, 6])
    negatives, gradients = torch.randint(0, 9, shape), []
    encoder = ENCODERS[kind](random_graph()).eval()
    for whole in (True, False):
        encoder.zero_grad()
        if whole:
            every = encoder()
            vectors = every[0][users], every[1][positives], every[1][negatives]
            named = torch.cat([users, positives + 12, negatives.flatten() + 12])
            regularised = torch.cat(every) if kind.startswith("ngcf") else encoder.get_parameter("base.weight")
            penalty = 0.5 * regularised[named].square().sum() / 2  # of the final rows, or of layer 0
        else:
            *vectors, penalty, _ = encoder.batch(users, positives, negatives)  # type: ignore[assignment]
        weights = [torch.linspace(-1, 1, part.numel()).view(part.shape) for part in vectors]
        loss = sum((weight * part).sum() for weight, part in zip(weights, vectors, strict=True)) + penalty
        loss.backward()
        found = [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]
        gradients.append([*vectors, penalty, *found])
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_free_vectors_are_drawn_as_the_papers_do() -> None:
    assert NodeVectors(20_000, 8).weight.std().item() == pytest.approx(0.1, rel=0.01)
    assert NodeVectors(20_000, 8, init="xavier").weight.abs().max().item() == pytest.approx(
        (6 / 20_008) ** 0.5, rel=0.01
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda graph: LightGCN(graph, 4, -1), "layers = -1: expected 0"),
        (lambda graph: LightGCN(graph, 4, edge_dropout=1.0), "edge_dropout = 1.0"),
        (lambda graph: LightGCN(graph, 0), "embedding_dim = 0: expected at least 1"),
        (lambda graph: NGCF(graph, 4, [0]), r"layers = \[0\]: expected widths"),
        (lambda graph: NGCF(graph, 4, message_dropout=-0.1), "message_dropout = -0.1"),
        (lambda graph: NGCF(graph, 4, node_dropout=1), "node_dropout = 1"),
        (lambda graph: NGCF(graph, 4, form="both"), "form = 'both': expected paper or code"),
    ],
)
def test_numbers_out_of_range_are_refused(build: Callable[[InteractionGraph], GraphEncoder], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(random_graph())
