"""Hops that are computed once, and nodes that came after training."""

import polars as pl
import pytest
import torch

from recembed.errors import ConfigError, DataError
from recembed.graph import Adjacency, GivenVectors, GraphColumns, InteractionGraph, LightGCN, hops, one_hop_update
from tests.graph.test_propagation import random_graph


def test_hops_are_those_of_the_layers_on_the_fly() -> None:
    graph, given = random_graph(), torch.randn(21, 4)
    found = hops(graph, given, 3)
    encoder = LightGCN(graph, 4, 3, base=GivenVectors(given))
    torch.testing.assert_close(sum(found) / 4, torch.cat(encoder()))
    torch.testing.assert_close(hops(graph, given, 2, "row")[2], Adjacency(graph, "row")(Adjacency(graph, "row")(given)))
    assert len(hops(graph, given, 0)) == 1
    assert (found[1][11] == 0).all()  # without edges nothing but the node's own vector is left


def test_users_without_content_get_that_of_their_items() -> None:
    given = torch.tensor([[0.0], [3.0], [5.0]])
    assert hops(InteractionGraph.of([0, 0], [0, 1]), given, 1, "row")[1].flatten().tolist() == [4.0, 0.0, 0.0]


def test_a_new_user_by_hand() -> None:
    """Items 10 and 30 have degrees 1 and 4; the new user meets both, and one item that nobody knows."""
    old = pl.DataFrame({"user_id": [1, 1, 2, 3, 4], "item_id": [10, 30, 30, 30, 30]})
    graph = InteractionGraph.from_frame(old)
    fresh = pl.DataFrame({"user_id": [9, 9, 9, 9, 8], "item_id": [10, 30, 30, 77, 77]})
    found = one_hop_update(graph, fresh, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert found["id"].to_list() == [9] and found["neighbours"].to_list() == [2]  # user 8 knows none
    assert found["inductive"].to_list() == [True]
    assert found["vector"].to_list()[0] == pytest.approx([1 / 2**0.5, 1 / 8**0.5])


def test_a_new_item_from_users_with_ids_as_text() -> None:
    old = pl.DataFrame({"who": ["ann", "bob"], "what": ["x", "x"]})
    columns = GraphColumns(user="who", item="what")
    graph = InteractionGraph.from_frame(old, columns)
    fresh = pl.DataFrame({"who": ["bob"], "what": ["y"]})
    found = one_hop_update(graph, fresh, torch.tensor([[1.0], [7.0]]), side="item", columns=columns)
    assert found.rows() == [("y", [7.0], 1, True)]


def test_one_hop_is_the_layer_of_lightgcn() -> None:
    """An item that nobody else met does not change when its new user comes: the update is the exact layer."""
    given = torch.randn(2, 3)
    graph = InteractionGraph.of([0], [0], num_items=2)
    fresh = pl.DataFrame({"user_id": [5], "item_id": [1]})
    found = one_hop_update(graph, fresh, given)["vector"].to_torch()
    grown = InteractionGraph.of([0, 1], [0, 1])
    torch.testing.assert_close(found[0], Adjacency(grown)(torch.cat([torch.zeros(2, 3), given]))[1])


def test_what_does_not_fit_is_refused() -> None:
    graph = InteractionGraph.of([0], [0])
    with pytest.raises(DataError, match="user 0 was trained: read its own vector"):
        one_hop_update(graph, pl.DataFrame({"user_id": [0], "item_id": [0]}), torch.ones(1, 2))
    with pytest.raises(DataError, match="3 vectors for 1 neighbours"):
        one_hop_update(graph, pl.DataFrame({"user_id": [4], "item_id": [0]}), torch.ones(3, 2))
    with pytest.raises(DataError, match="3 vectors for 2 nodes"):
        hops(graph, torch.ones(3, 1), 1)
    with pytest.raises(ConfigError, match="count = -1"):
        hops(graph, torch.ones(2, 1), -1)
