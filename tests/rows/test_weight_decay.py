"""Weight decay of rows: worked by hand, against a dense optimiser, and in turns."""

from collections import Counter

import pytest
import torch

from recembed.rows import (
    SGD,
    Adagrad,
    Adam,
    PlainStore,
    RowOptimizer,
    RowTable,
    RowWiseAdagrad,
    decay_rows,
    make_row_store,
)
from recembed.rows.weight_decay import windows


def test_sgd_shrinks_every_row_by_hand() -> None:
    store = PlainStore([RowTable("item", 3, 2)], optimizer=SGD(learning_rate=0.5, weight_decay=0.1))
    store.rows("item").copy_(torch.tensor([[1.0, 2.0], [4.0, 0.0], [-2.0, 8.0]]))
    decay_rows(store, 0, window=1024)
    expected = torch.tensor([[0.95, 1.9], [3.8, 0.0], [-1.9, 7.6]])  # 1 - 0.5 * 0.1
    assert torch.allclose(store.rows("item"), expected)


@pytest.mark.parametrize("rule", [Adagrad, RowWiseAdagrad, Adam])
def test_rows_that_no_step_moved_stay(rule: type[RowOptimizer]) -> None:
    store = PlainStore([RowTable("item", 3, 4)], optimizer=rule(learning_rate=0.1, weight_decay=0.5))
    store.rows("item").fill_(1.0)
    store(torch.tensor([1]), 4).sum().backward()
    moved = store.rows("item")[1].clone()
    decay_rows(store, 0, window=1024)
    assert torch.equal(store.rows("item")[0], torch.ones(4))
    # Adagrad after one gradient of 1: sum 1; Adam: corrected second moment 1. So a step along 0.5 * row is 0.05 of it.
    assert torch.allclose(store.rows("item")[1], 0.95 * moved)


def test_nothing_moves_without_weight_decay() -> None:
    store = PlainStore([RowTable("item", 3, 2)], optimizer=SGD(learning_rate=0.5))
    before = store.rows("item").clone()
    decay_rows(store, 0, window=1024)
    assert torch.equal(store.rows("item"), before)


def test_a_row_never_changes_its_sign() -> None:
    store = PlainStore([RowTable("item", 2, 2)], optimizer=SGD(learning_rate=1.0, weight_decay=7.0))
    store.rows("item").fill_(1.0)
    decay_rows(store, 0, window=1024)
    assert torch.equal(store.rows("item"), torch.zeros(2, 2))


def test_all_rows_have_their_turn_and_pay_for_the_others() -> None:
    tables = [RowTable("item", 7, 2), RowTable("user", 4, 4), RowTable("zip", 1, 2)]
    seen = Counter(
        (name, row)
        for step in range(4)
        for name, first, last in windows({table.name: table for table in tables}, step, window=3)
        for row in range(first, last)
    )
    assert set(seen.values()) == {1} and len(seen) == 12
    store = PlainStore(tables, optimizer=SGD(learning_rate=0.01, weight_decay=1.0))
    for table in tables:
        store.rows(table.name).fill_(1.0)
    for step in range(4):
        decay_rows(store, step, window=3)
    for table in tables:  # four turns paid at once: 1 - 4 * 0.01
        assert torch.allclose(store.rows(table.name), torch.tensor(0.96))


@pytest.mark.parametrize("width", [4, 6])
def test_fused_rows_shrink_as_plain_ones(width: int) -> None:
    pytest.importorskip("fbgemm_gpu")
    rule = RowWiseAdagrad(learning_rate=0.1, weight_decay=0.01)
    stores = [make_row_store(name, [RowTable("item", 50, width)], optimizer=rule) for name in ("torch", "torchrec")]
    addresses = torch.randint(0, 50, (64,), generator=torch.Generator().manual_seed(1))
    for step in range(5):
        for store in stores:
            store(addresses, width).square().sum().backward()
            decay_rows(store, step, window=1024)
    assert torch.allclose(stores[0].rows("item"), stores[1].rows("item"), atol=1e-6)
    untouched = sorted(set(range(50)) - set(addresses.tolist()))
    fresh = make_row_store("torch", [RowTable("item", 50, width)], optimizer=rule)
    assert untouched and torch.equal(stores[1].rows("item")[untouched], fresh.rows("item")[untouched])
