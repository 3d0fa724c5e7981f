"""FREEDOM: which edges an epoch keeps, what is frozen, and that evaluation reads the whole graph."""

import math

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.evaluation import UserItems
from recembed.graph import LightGCN
from recembed.graph.edges import Edges
from recembed.items.freedom import Freedom, keep_edges
from recembed.items.item_graph import ItemGraph
from recembed.items.source_vectors import sources_of
from recembed.retrieval import RetrievalTrainer, RetrievalTraining
from tests.items.graphs import ITEMS, USERS, content, graph


def freedom(**options: object) -> Freedom:
    return Freedom(graph(), content(), 4, **{"neighbours": 3, "edge_dropout": 0.5, **options})  # type: ignore[arg-type]


def pairs(edges: Edges) -> set[tuple[int, int]]:
    return set(zip(edges.rows.tolist(), edges.neighbours.tolist(), strict=True))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8, 0.9])
def test_the_floor_of_the_share_that_stays_is_kept(share: float) -> None:
    edges = graph().edges
    kept = keep_edges(edges, share, np.random.default_rng(0))
    assert len(kept) == math.floor(round(len(edges) * (1 - share), 6))
    assert pairs(kept) <= pairs(edges) and len(pairs(kept)) == len(kept)
    assert kept.shape == edges.shape
    ten = Edges.of(np.arange(10), np.arange(10), None, (10, 10))
    assert len(keep_edges(ten, 0.8, np.random.default_rng(0))) == 2  # 10 · (1 - 0.8) is 1.9999… in floats


def test_the_chance_of_an_edge_falls_with_the_root_of_its_degrees() -> None:
    """One edge is kept, so its frequency is its chance: users of degrees 4 and 1, items of degrees 1 and 2."""
    edges = Edges.of(np.array([0, 0, 0, 0, 1]), np.array([0, 1, 2, 3, 3]), None, (2, 4))
    weights = np.array([0.5, 0.5, 0.5, 1 / math.sqrt(8), 1 / math.sqrt(2)])
    random, draws = np.random.default_rng(0), 20_000
    found = np.zeros((2, 4))
    for _ in range(draws):
        kept = keep_edges(edges, 0.8, random)
        found[kept.rows[0], kept.neighbours[0]] += 1
    expected = weights / weights.sum()
    assert found[edges.rows, edges.neighbours] / draws == pytest.approx(expected, abs=4 * math.sqrt(0.25 / draws))


def test_weights_of_edges_stay_with_them() -> None:
    edges = Edges.of(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0]), (2, 2))
    kept = keep_edges(edges, 0.3, np.random.default_rng(0))
    assert kept.weights is not None
    for user, item, weight in zip(kept.rows, kept.neighbours, kept.weights, strict=True):
        assert weight == {(0, 0): 1.0, (0, 1): 2.0, (1, 1): 3.0}[(int(user), int(item))]


def test_each_epoch_has_its_own_edges_and_a_resumed_one_the_same() -> None:
    encoder = freedom()
    drawn = []
    for epoch in (0, 1, 0):
        encoder.start_epoch(epoch)
        drawn.append(encoder.sampled.dense().clone())
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    kept = math.floor(len(graph().edges) * 0.5)
    assert [int((matrix > 0).sum()) for matrix in drawn] == [2 * kept] * 3
    degrees = (drawn[0] > 0).sum(1).float()
    rows, columns = drawn[0].nonzero(as_tuple=True)
    torch.testing.assert_close(drawn[0][rows, columns], 1 / (degrees[rows] * degrees[columns]).sqrt())  # of the sample


def test_evaluation_reads_the_whole_graph() -> None:
    encoder = freedom()
    trained = torch.cat(encoder.train()())
    served = torch.cat(encoder.eval()())
    assert not torch.equal(trained, served)
    encoder.start_epoch(5)
    assert torch.equal(torch.cat(encoder()), served)


def test_it_is_lightgcn_plus_the_neighbours_in_content() -> None:
    encoder = freedom(layers=2, item_layers=2).eval()
    base = encoder.get_parameter("base.weight").detach().clone()
    base[-1] = 0  # nobody has met the last item
    plain = LightGCN(graph(), 4, 2)
    with torch.no_grad():
        plain.get_parameter("base.weight").copy_(base)
    matrix = ItemGraph(sources_of(content(), ITEMS), 3)(torch.eye(ITEMS))
    users, items = plain.eval()()
    torch.testing.assert_close(encoder()[0], users)
    torch.testing.assert_close(encoder()[1], items + matrix @ matrix @ base[USERS:])
    assert encoder()[1][-1].any()


def test_the_frozen_graph_has_no_gradient_and_all_else_has() -> None:
    encoder = freedom(content_weight=0.5).train()
    read = encoder.batch(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]), torch.tensor([3, 4]))
    assert [beside.weight for beside in read.auxiliary] == [0.5, 0.5]
    total = read.users.sum() + read.positives.square().sum() + read.negatives.square().sum()
    for beside in read.auxiliary:
        total = total + (beside.users @ beside.negatives.T).sum() + beside.positives.square().sum()
    total.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())
    assert {name.split(".")[0] for name, _ in encoder.named_parameters()} == {"base", "matrices"}
    assert not any(buffer.requires_grad for buffer in encoder.buffers())


def test_the_content_of_a_step_is_that_of_its_items() -> None:
    encoder = freedom()
    positives, negatives = torch.tensor([4, 4, 0]), torch.tensor([[1, 2], [3, 4], [0, 0]])
    read = encoder.batch(torch.tensor([0, 1, 2]), positives, negatives)
    whole = encoder.sources["text"]() @ encoder.matrices["text"].T
    assert torch.equal(read.auxiliary[1].users, read.users)
    torch.testing.assert_close(read.auxiliary[1].positives, whole[positives])
    torch.testing.assert_close(read.auxiliary[1].negatives, whole[negatives])
    assert freedom(content_weight=0.0).batch(torch.tensor([0]), positives[:1], negatives[:1]).auxiliary == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "bpr"},
        {"loss": "bpr", "sampler": {"kind": "hard", "pool": 3}},
        {"loss": "bpr", "sampler": {"kind": "uniform", "negatives": 4, "shared": True}},
        {"loss": {"kind": "sampled_softmax"}, "sampler": {"kind": "popularity", "negatives": 8, "shared": True}},
        {"loss": "in_batch_softmax"},
    ],
)
def test_the_loss_on_content_counts_by_its_weight(settings: dict[str, object]) -> None:
    edges = graph().edges
    train = UserItems(edges.rows, edges.neighbours, num_users=USERS, num_items=ITEMS)
    config = RetrievalTraining.model_validate({"epochs": 1, "batch_size": 16, **settings})
    losses = []
    for weight in (0.0, 1.0, 2.0):
        trainer = RetrievalTrainer(freedom(content_weight=weight), train, config)
        losses.append(trainer.step(trainer.users[:16], trainer.items[:16], 0).item())
    assert losses[1] > losses[0] + 0.01
    assert losses[2] - losses[0] == pytest.approx(2 * (losses[1] - losses[0]), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers = 0: expected at least 1"),
        ({"item_layers": 0}, "item_layers = 0: expected at least 1"),
        ({"edge_dropout": 1.0}, "edge_dropout = 1.0: expected 0 or more and less than 1"),
        ({"edge_dropout": 0.999}, "of 33 edges none is left; lower it"),
        ({"neighbours": 9}, r"neighbours = 9: expected 1..8"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        freedom(**options)
