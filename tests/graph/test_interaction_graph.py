"""Graphs from tables of interactions: ids, duplicates, weights, time, types, cores, disk."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recembed.errors import ConfigError, DataError
from recembed.graph import GraphColumns, InteractionGraph, load_graph, save_graph

VISITS = pl.DataFrame(
    {
        "user_id": ["bob", "ann", "bob", "bob"],
        "item_id": [30, 10, 10, 30],
        "stars": [5.0, 3.0, 1.0, 2.0],
        "day": [1, 2, 3, 4],
        "event": ["buy", "view", "view", "view"],
    }
)


def pairs(graph: InteractionGraph) -> set[tuple[object, object]]:
    users, items = graph.user_ids[graph.edges.rows], graph.item_ids[graph.edges.neighbours]
    return set(zip(users.to_list(), items.to_list(), strict=True))


def test_raw_ids_of_any_type_are_numbered_in_their_order() -> None:
    graph = InteractionGraph.from_frame(VISITS)
    assert (graph.user_ids.to_list(), graph.item_ids.to_list()) == (["ann", "bob"], [10, 30])
    assert [graph.user_items(user).tolist() for user in range(2)] == [[0], [0, 1]]
    assert graph.edges.pointers.dtype == np.int64 and graph.edges.neighbours.dtype == np.int32
    assert graph.users_of(pl.Series(["bob", "eve"])).tolist() == [1, -1]
    assert graph.items_of(pl.Series([30, 31])).tolist() == [1, -1]


def test_a_lazy_frame_gives_the_same_graph() -> None:
    assert pairs(InteractionGraph.from_frame(VISITS.lazy())) == {("ann", 10), ("bob", 10), ("bob", 30)}


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, None),
        ({"duplicates": "sum"}, [1.0, 1.0, 2.0]),
        ({"weight": "stars"}, [3.0, 1.0, 5.0]),
        ({"weight": "stars", "duplicates": "sum"}, [3.0, 1.0, 7.0]),
    ],
)
def test_duplicates_are_one_edge(settings: dict[str, str], weights: list[float] | None) -> None:
    graph = InteractionGraph.from_frame(VISITS, GraphColumns.model_validate(settings))
    kept = graph.edges.weights
    assert graph.num_edges == 3
    assert (None if kept is None else kept.tolist()) == weights


def test_no_edge_comes_from_the_future() -> None:
    graph = InteractionGraph.from_frame(VISITS, GraphColumns(time="day", until=3))
    assert pairs(graph) == {("bob", 30), ("ann", 10)}
    with pytest.raises(ConfigError, match="until = 3 needs `time`"):
        InteractionGraph.from_frame(VISITS, GraphColumns(until=3))
    with pytest.raises(DataError, match="the graph has no edge"):
        InteractionGraph.from_frame(VISITS, GraphColumns(time="day", until=1))


def test_an_item_of_the_test_set_alone_is_an_isolated_node() -> None:
    graph = InteractionGraph.from_frame(VISITS, item_ids=pl.Series([10, 20, 30]))
    assert graph.num_items == 3 and graph.edges.column_degrees.tolist() == [2, 0, 1]
    assert graph.statistics().isolated_items == 1


def test_interactions_of_unknown_ids_are_left_out() -> None:
    graph = InteractionGraph.from_frame(VISITS, GraphColumns(weight="stars"), user_ids=pl.Series(["ann", "zoe"]))
    assert pairs(graph) == {("ann", 10)} and graph.edges.degrees.tolist() == [1, 0]


def test_each_type_has_its_edges() -> None:
    columns = GraphColumns(edge_type="event", type_weights={"buy": 4.0}, duplicates="sum")
    graph = InteractionGraph.from_frame(VISITS, columns)
    assert graph.edges.weights is not None and graph.edges.weights.tolist() == [1.0, 1.0, 5.0]
    assert pairs(graph.only("buy")) == {("bob", 30)}
    assert pairs(graph.only("view")) == {("ann", 10), ("bob", 10), ("bob", 30)}
    assert graph.only("buy").num_users == 2
    with pytest.raises(ConfigError, match="edge type 'by' is not in the graph; did you mean 'buy'"):
        graph.only("by")
    with pytest.raises(ConfigError, match="type_weights: no edge is of type 'bye'"):
        InteractionGraph.from_frame(VISITS, GraphColumns(edge_type="event", type_weights={"bye": 2.0}))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (VISITS.clear(), "the graph has no edge"),
        (VISITS.rename({"item_id": "item"}), "no column 'item_id'; did you mean 'item'"),
        (VISITS.with_columns(user_id=pl.lit(None, pl.String)), "column 'user_id': 4 rows have no id"),
        (VISITS.with_columns(item_id=pl.lit(0.5)), "column 'item_id' holds Float64"),
    ],
)
def test_bad_tables_are_refused(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        InteractionGraph.from_frame(frame)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), None])
def test_a_weight_is_above_zero(bad: float | None) -> None:
    frame = VISITS.with_columns(stars=pl.lit(bad, pl.Float64))
    with pytest.raises(DataError, match="of an edge: expected a finite number above 0"):
        InteractionGraph.from_frame(frame, GraphColumns(weight="stars"))


def test_node_numbers_are_checked() -> None:
    with pytest.raises(DataError, match=r"item 7 is outside 0\.\.4"):
        InteractionGraph.of([0], [7], num_items=5)
    with pytest.raises(DataError, match="user -1 is outside"):
        InteractionGraph.of([-1], [0])
    with pytest.raises(DataError, match="two arrays of one length"):
        InteractionGraph.of([0, 1], [0])
    with pytest.raises(DataError, match="ids of String looked up among ids of Int64"):
        InteractionGraph.of([0], [0]).users_of(pl.Series("user", ["a"]))


def test_statistics_by_hand() -> None:
    found = InteractionGraph.of([0, 0, 1, 1, 1], [0, 1, 0, 1, 3], num_users=3, num_items=4).statistics()
    assert (found.users, found.items, found.edges, found.density) == (3, 4, 5, 5 / 12)
    assert (found.isolated_users, found.isolated_items) == (1, 1)
    assert (found.mean_user_degree, found.median_user_degree, found.max_user_degree) == (5 / 3, 2.0, 3)
    assert (found.mean_item_degree, found.median_item_degree, found.max_item_degree) == (1.25, 1.5, 2)


def test_the_core_by_hand() -> None:
    """User 2 has one edge; without it item 2 has one; without that user 3 has one: the square 0, 1 × 0, 1 stays."""
    graph = InteractionGraph.of([0, 0, 1, 1, 2, 3, 3], [0, 1, 0, 1, 2, 2, 0])
    assert pairs(graph.core(2)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert pairs(graph.core(1)) == pairs(graph)
    with pytest.raises(DataError, match="no 3-core"):
        graph.core(3)
    with pytest.raises(ConfigError, match="k = 0"):
        graph.core(0)


edge_lists = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=30)


@given(edge_lists)
def test_a_core_is_a_core(edges: list[tuple[int, int]]) -> None:
    graph = InteractionGraph.of(*zip(*edges, strict=True))
    try:
        core = graph.core(2)
    except DataError:
        return
    assert core.edges.degrees.min() >= 2 and core.edges.column_degrees.min() >= 2
    assert pairs(core) <= pairs(graph)


@given(edge_lists)
def test_another_order_is_the_same_graph(edges: list[tuple[int, int]]) -> None:
    graph = InteractionGraph.of(*zip(*edges, strict=True))
    near = graph.for_locality()
    assert pairs(near) == pairs(graph) == set(edges)
    assert sorted(near.user_ids.to_list()) == graph.user_ids.to_list()


@given(edge_lists)
def test_transposing_twice_changes_nothing(edges: list[tuple[int, int]]) -> None:
    graph = InteractionGraph.of(*zip(*edges, strict=True), weights=np.arange(1, len(edges) + 1))
    there, places = graph.edges.transposed()
    back, _ = there.transposed()
    assert back.weights is not None and graph.edges.weights is not None and there.weights is not None
    assert back.neighbours.tolist() == graph.edges.neighbours.tolist()
    assert there.weights.tolist() == graph.edges.weights[places].tolist()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_graph_on_disk_is_the_graph(tmp_path: Path, mapped: bool) -> None:
    graph = InteractionGraph.from_frame(VISITS, GraphColumns(edge_type="event", weight="stars"))
    for _ in range(2):  # the second time in the place of the first
        save_graph(graph, tmp_path / "graph")
    read = load_graph(tmp_path / "graph", mapped=mapped)
    assert pairs(read) == pairs(graph) and pairs(read.only("buy")) == {("bob", 30)}
    assert read.edges.weights is not None and graph.edges.weights is not None
    assert read.edges.weights.tolist() == graph.edges.weights.tolist()
    assert isinstance(read.edges.neighbours, np.memmap) == mapped
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph"]


def test_a_folder_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no saved graph"):
        load_graph(tmp_path)
    save_graph(InteractionGraph.of([0], [0]), tmp_path / "graph")
    (tmp_path / "graph" / "graph.json").write_text('{"format": 9, "types": []}')
    with pytest.raises(DataError, match="graph of format 9"):
        load_graph(tmp_path / "graph")


def test_gowalla(real_data: Path) -> None:
    frame = pl.read_parquet(real_data / "gowalla" / "train.parquet")
    found = InteractionGraph.from_frame(frame).statistics()
    assert (found.users, found.items, found.edges) == (29_858, 40_981, 810_128)
