"""The frozen graph of items: nearest by definition, ties by number, in blocks."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recembed.errors import ConfigError
from recembed.items import item_graph
from recembed.items.item_graph import ItemGraph, nearest_items
from recembed.items.source_vectors import sources_of
from tests.items.graphs import ITEMS, content


class Largest(TorchDispatchMode):
    """Notes the most cells of any tensor that is made."""

    cells = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.cells = max(self.cells, one.numel())
        return made


def dense(graph: ItemGraph, items: int = ITEMS) -> torch.Tensor:
    return graph(torch.eye(items))


def test_the_nearest_are_those_of_the_whole_matrix() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(50, 6)
    units = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = (units @ units.T).fill_diagonal_(-2)
    expected = cosines.topk(7).indices
    for cells in (1, 130, 10_000):
        assert torch.equal(nearest_items(vectors, 7, cells=cells), expected)


def test_equal_ones_go_by_number_whatever_the_block() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(64), torch.randn(64)
    vectors = torch.stack([other, *[one * (1 + i) for i in range(40)], -one])  # 1..40 have one direction
    for cells in (42, 420, 10_000):
        near = nearest_items(vectors, 5, cells=cells)
        assert near[20].tolist() == [1, 2, 3, 4, 5]
        assert near[3].tolist() == [1, 2, 4, 5, 6]
        assert near[41, 0].item() == 0 or torch.dot(one, other) > 0


def test_no_matrix_of_all_pairs_is_held() -> None:
    vectors = torch.randn(300, 8)
    with Largest() as watched:
        near = nearest_items(vectors, 10, cells=6_000)
    assert near.shape == (300, 10)
    assert watched.cells <= 6_000 < 300 * 300


def test_rows_hold_k_entries_and_sum_up_to_1() -> None:
    sources = sources_of({"image": content()["image"]}, ITEMS)
    matrix = dense(ItemGraph(sources, 4))
    assert (matrix > 0).sum(1).tolist() == [4] * ITEMS
    torch.testing.assert_close(matrix[matrix > 0], torch.full((4 * ITEMS,), 0.25))
    assert matrix.diagonal().tolist() == [0.0] * ITEMS
    near = nearest_items(sources["image"](), 4)
    assert all(set(near[i].tolist()) == set(matrix[i].nonzero().flatten().tolist()) for i in range(ITEMS))


def test_sources_are_weighed_among_those_that_know_the_item() -> None:
    found = content(absent=(2, 5))
    sources = sources_of(found, ITEMS)
    both = dense(ItemGraph(sources, 3, {"image": 0.1, "text": 0.9}))
    image = dense(ItemGraph(sources_of({"image": found["image"]}, ITEMS), 3))
    text = dense(ItemGraph(sources, 3, {"image": 0.0, "text": 1.0}))
    expected = 0.1 * image + 0.9 * text
    expected[[2, 5]] = image[[2, 5]]  # text knows nothing of them
    torch.testing.assert_close(both, expected)
    assert text[[2, 5]].abs().sum() == 0 and text[:, [2, 5]].abs().sum() == 0
    torch.testing.assert_close(both.sum(1), torch.ones(ITEMS))


def test_it_is_frozen_and_its_product_has_the_gradient_of_a_matrix() -> None:
    graph = ItemGraph(sources_of(content(absent=(2,)), ITEMS), 3)
    assert not list(graph.parameters()) and not graph.state_dict()
    assert not any(buffer.requires_grad for buffer in graph.buffers())
    vectors, weight = torch.randn(ITEMS, 4, requires_grad=True), torch.randn(ITEMS, 4)
    (graph(vectors) * weight).sum().backward()
    torch.testing.assert_close(vectors.grad, dense(graph).T @ weight)


def test_what_does_not_fit_is_refused() -> None:
    sources = sources_of(content(absent=(2,)), ITEMS)
    with pytest.raises(ConfigError, match=r"neighbours = 8: expected 1..7, the other items that have a vector"):
        ItemGraph(sources, 8)
    with pytest.raises(ConfigError, match="neighbours = 0: expected 1"):
        ItemGraph(sources, 0)
    with pytest.raises(ConfigError, match=r"weights of \['image'\]: expected one for each source, \['image', 'text'\]"):
        ItemGraph(sources, 2, {"image": 1.0})
    with pytest.raises(ConfigError, match="expected numbers of at least 0, one of them above"):
        ItemGraph(sources, 2, {"image": 0.0, "text": 0.0})


def test_the_neighbours_of_the_same_vectors_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(vectors: torch.Tensor, k: int) -> torch.Tensor:
        asked.append(k)
        return nearest_items(vectors, k)

    monkeypatch.setattr(item_graph, "_REMEMBERED", {})
    monkeypatch.setattr(item_graph, "nearest_items", counted)
    sources = sources_of(content(), ITEMS)
    first = dense(ItemGraph(sources, 3))
    assert len(asked) == len(sources)
    assert torch.equal(dense(ItemGraph(sources, 3)), first)
    assert len(asked) == len(sources)
    assert not torch.equal(dense(ItemGraph(sources, 2)), first)
    for neighbours in range(1, 6):
        ItemGraph(sources, neighbours)
    assert len(item_graph._REMEMBERED) == 4
