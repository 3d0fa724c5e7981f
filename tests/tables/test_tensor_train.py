"""Tensor-train tables: the chain by hand and against an explicit contraction, scales and budgets."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import Init, PlainStore
from recembed.tables import FullTable, HashedTable, Table, TableSpec, TensorTrainConfig
from recembed.tables.tensor_train import _width_factors


def build(size: int, width: int = 8, *, linear: bool = False, init: Init | None = None, **options: Any) -> Table:
    config = TensorTrainConfig.model_validate({"exact_below": 0} | options)
    return config.build([TableSpec("f", size, width, init or Init(), linear=linear)], seed=0)["f"]


def vectors(table: Table, ids: Tensor) -> Tensor:
    store = PlainStore(table.slots, optimizer=None)
    addresses = table.address(ids)
    return table.decode([store.rows(slot.name)[addresses[..., i]] for i, slot in enumerate(table.slots)], ids)


def test_worked_by_hand() -> None:
    """Rank 1 and width 4 = 2 * 1 * 2: the outer product of the first and last slices, times the middle one."""
    table = build(1000, 4, rank=1)
    assert table.address(torch.tensor([734])).tolist() == [[4, 3, 7]]
    rows = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), torch.tensor([[5.0, -1.0]])]
    assert table.decode(rows, torch.tensor([734])).tolist() == [[15.0, -3.0, 30.0, -6.0]]


@pytest.mark.parametrize(("width", "rank"), [(8, 3), (12, 2), (7, 4), (16, 5)])
def test_every_id_equals_the_explicit_contraction(width: int, rank: int) -> None:
    table = build(4000, width, rank=rank)
    store = PlainStore(table.slots, optimizer=None)
    d1, d2, d3 = _width_factors(width)
    first, middle, last = (store.rows(slot.name) for slot in table.slots)
    cores = first.view(-1, d1, rank), middle.view(-1, rank, d2, rank), last.view(-1, rank, d3)
    whole = torch.einsum("xap,ypbq,zqc->zyxabc", *cores).flatten(3)  # id = x + n1 * (y + n2 * z)
    torch.testing.assert_close(vectors(table, torch.arange(4000)), whole.flatten(0, 2)[:4000])


def test_ids_of_any_shape() -> None:
    table = build(4000, rank=2)
    for shape in ((), (0,), (5, 3)):
        assert vectors(table, torch.zeros(shape, dtype=torch.int64)).shape == (*shape, 8)


@pytest.mark.parametrize("law", ["normal", "uniform"])
@pytest.mark.parametrize("rank", [1, 6])
def test_vectors_start_at_the_scale_of_a_plain_row(law: Any, rank: int) -> None:
    found = vectors(build(100_000, 64, init=Init(0.02, law), rank=rank), torch.arange(100_000))
    assert found.std().item() == pytest.approx(0.02 / (3**0.5 if law == "uniform" else 1), rel=0.15)


@given(st.integers(200, 10**7), st.integers(2, 64), st.floats(0.001, 0.9))
def test_the_rank_is_the_largest_within_the_ratio(size: int, width: int, ratio: float) -> None:
    table = build(size, width, ratio=ratio)
    if isinstance(table, FullTable) or table.rank in (1, 128):  # the least and the largest there are
        return
    assert sum(slot.bytes for slot in table.slots) <= ratio * 4 * size * width
    larger = build(size, width, rank=table.rank + 1)
    useful = not isinstance(larger, FullTable) and larger.rank > table.rank
    assert not useful or sum(slot.bytes for slot in larger.slots) > ratio * 4 * size * width


def test_the_rank_stops_where_it_adds_nothing_or_rows_grow_too_wide() -> None:
    assert build(1000, 16, rank=100).rank == 20  # 10 * 2
    assert max(slot.embedding_dim for slot in build(10**7, 512, rank=128).slots) <= 16_384


def test_width_factors() -> None:
    assert [_width_factors(width) for width in (16, 64, 8, 12, 7, 1)] == [
        *[(2, 2, 4), (4, 4, 4), (2, 2, 2)],
        *[(2, 2, 3), (1, 1, 7), (1, 1, 1)],
    ]


def test_first_order_weights_are_hashed_ids() -> None:
    table = build(1000, 1, linear=True, rank=2)
    assert isinstance(table, HashedTable) and table.reads == "ids"
    assert table.slots[0].num_embeddings == 2 * (10 + 10 * 2 + 10)


def test_a_feature_that_would_not_shrink_keeps_its_exact_table() -> None:
    assert isinstance(build(30, rank=8), FullTable)
    assert isinstance(build(100, rank=1, exact_below=100), FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="rank and ratio are both given"):
        TensorTrainConfig(rank=4, ratio=0.1)
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'tensor_train' needs its size"):
        TensorTrainConfig().build([TableSpec("f", None, 8)], seed=0)
