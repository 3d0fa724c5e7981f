"""NodePiece: tokens by hand, nodes that came later, parameters that do not grow."""

import numpy as np
import polars as pl
import pytest
import torch

from recembed.errors import ConfigError, DataError
from recembed.graph import GraphColumns, InteractionGraph, LightGCN, NodePiece
from recembed.graph.node_piece import anchor_tokens, top_degree_nodes
from tests.graph.test_encoders import path
from tests.graph.test_propagation import random_graph


def count(piece: NodePiece) -> int:
    return sum(parameter.numel() for parameter in piece.parameters())


def test_tokens_of_a_chain_by_hand() -> None:
    """user 0 – item 0 – user 1 – item 1 – user 2; nodes 0, 1, 2 are users, 3 and 4 items; anchors user 0, item 1."""
    tokens, distances = anchor_tokens(path(5), np.array([0, 4]), per_node=2, most_hops=2)
    assert tokens.tolist() == [[0, 2], [1, 0], [1, 2], [0, 1], [1, 2]]
    assert distances.tolist() == [[0, 3], [1, 2], [1, 3], [1, 2], [0, 3]]


def test_an_isolated_node_has_no_anchor() -> None:
    tokens, distances = anchor_tokens(InteractionGraph.of([0], [0], num_items=2), np.array([0]), 3, 2)
    assert tokens[2].tolist() == [1, 1, 1] and distances[2].tolist() == [3, 3, 3]
    assert NodePiece(random_graph(), 4, anchors=5, per_node=2)().isfinite().all()


def test_equal_distances_are_in_the_order_of_the_anchors() -> None:
    star = InteractionGraph.of([0, 0, 0], [0, 1, 2])
    assert anchor_tokens(star, np.array([1, 2, 3]), 3, 1)[0][0].tolist() == [0, 1, 2]


def test_anchors_are_the_nodes_with_most_edges() -> None:
    assert top_degree_nodes(InteractionGraph.of([0, 1, 2, 2], [0, 0, 0, 1]), 2).tolist() == [3, 2]


def test_many_anchors_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = anchor_tokens(random_graph(), np.arange(15), 4, 3)
    monkeypatch.setattr("recembed.graph.node_piece._BLOCK", 4)
    for part, expected in zip(anchor_tokens(random_graph(), np.arange(15), 4, 3), whole, strict=True):
        assert part.tolist() == expected.tolist()


def test_an_edge_far_away_changes_no_tokens() -> None:
    near, far = path(6), InteractionGraph.of([0, 1, 1, 2, 2, 3], [0, 0, 1, 1, 2, 2], num_users=4, num_items=3)
    anchors_near, anchors_far = np.array([0]), np.array([0])
    first = anchor_tokens(near, anchors_near, 1, 2)[1][[0, 1, 3, 4]]
    assert anchor_tokens(far, anchors_far, 1, 2)[1][[0, 1, 4, 5]].tolist() == first.tolist()


def test_a_new_node_with_the_neighbours_of_an_old_one_has_its_vector() -> None:
    """User 3, no anchor, spelled once by its place in the graph and once from the items it met."""
    graph = InteractionGraph.of([0, 0, 1, 2, 3, 3], [0, 1, 1, 2, 0, 1])
    piece = NodePiece(graph, 4, anchors=2, per_node=2, most_hops=3)
    assert 3 not in piece.anchor_nodes
    tokens, distances = piece.tokens_of(graph.num_users + graph.user_items(3))
    vector = piece.spell(tokens, distances, torch.ones(1, 1))
    torch.testing.assert_close(vector[0], piece()[3])
    with pytest.raises(DataError, match="a new node without a neighbour"):
        piece.tokens_of(np.array([], np.int64))


def test_parameters_do_not_grow_with_the_nodes() -> None:
    small = NodePiece(random_graph(), 4, anchors=5, per_node=2)
    large = NodePiece(random_graph(300, 200, 1000), 4, anchors=5, per_node=2)
    assert count(small) == count(large) == (5 + 1) * 4 + 5 * 4 + 4 + (3 * 4 * 8 + 8) + (8 * 4 + 4)


def test_types_of_edges_are_tokens() -> None:
    rows = {"user_id": [0, 0, 1, 1], "item_id": [0, 1, 0, 1], "event": ["buy", "buy", "view", "view"]}
    graph = InteractionGraph.from_frame(pl.DataFrame(rows), GraphColumns(edge_type="event"))
    piece = NodePiece(graph, 4, anchors=2, per_node=1)
    assert piece.get_buffer("relations").tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]]
    assert piece.types.shape == (2, 4)


def test_the_share_of_distinct_spellings() -> None:
    star = InteractionGraph.of([0, 0, 0], [0, 1, 2])  # the anchor, and three leaves that are spelled alike
    assert NodePiece(star, 4, anchors=1, per_node=1).distinct_share == 0.5


def test_it_is_a_base_of_a_graph_encoder() -> None:
    piece = NodePiece(random_graph(), 4, anchors=5, per_node=2)
    encoder = LightGCN(random_graph(), 4, 2, base=piece)
    encoder()[0].sum().backward()
    assert piece.anchors.weight.grad is not None and piece.anchors.weight.grad.abs().sum() > 0
    assert torch.equal(NodePiece(random_graph(), 4, anchors=5, per_node=2)(), piece())


@pytest.mark.parametrize("options", [{"anchors": 0}, {"anchors": 22}, {"per_node": 0}, {"most_hops": 0}])
def test_settings_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected at least 1 each, and at most 21 anchors"):
        NodePiece(random_graph(), 4, **({"anchors": 5} | options))  # type: ignore[arg-type]
