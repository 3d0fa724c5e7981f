"""AutoSrh: groups of like frequency, their gates, the mask they leave, and what is served."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import SGD, PlainStore
from recembed.tables import AutoSrhConfig, AutoSrhTable, FullTable, TableSpec
from recembed.tables.masked import MaskedTable


def build(ids: int = 600, width: int = 8, **options: Any) -> tuple[AutoSrhTable, PlainStore]:
    spec = TableSpec("f", ids, width, counts=options.pop("counts", np.arange(ids, 0, -1)))
    table = AutoSrhConfig.model_validate({"exact_below": 0} | options).build([spec], 0)["f"]
    assert isinstance(table, AutoSrhTable)
    return table, PlainStore(list(table.slots), optimizer=SGD(learning_rate=0.1))


def read(table: AutoSrhTable, store: PlainStore, ids: Tensor) -> Tensor:
    return table.decode([store(table.address(ids).squeeze(-1), table.embedding_dim)], ids)


def test_worked_by_hand() -> None:
    """Gates (1, 0.5) on the frequent id, (0, 1) on the rare one; products 4, 1, 0 and 3."""
    table, store = build(2, 2, groups=2)
    rows = torch.tensor([[4.0, 2.0], [9.0, -3.0]])
    store.rows("f").copy_(rows)
    with torch.no_grad():
        table.gates.copy_(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    assert read(table, store, torch.tensor([0, 1])).tolist() == [[4.0, 1.0], [0.0, -3.0]]
    assert table.take_losses()[0].item() == pytest.approx(2.5e-5)  # l1 times the sum of the gates
    assert table.settle(store) == {"kept_weights": 3.0, "sparsity": 0.25, "open_gates": 0.75}
    assert store.rows("f").tolist() == [[4.0, 1.0], [0.0, -3.0]]
    assert read(table, store, torch.tensor([0, 1])).tolist() == [[4.0, 1.0], [0.0, -3.0]]
    assert table.compact(store).decode([], torch.tensor([1, 0])).tolist() == [[0.0, -3.0], [4.0, 1.0]]


def test_groups_hold_ids_of_like_frequency() -> None:
    counts = np.random.default_rng(0).permutation(600)
    table, _ = build(counts=counts)
    groups = table.group(torch.arange(600)).numpy()
    assert np.bincount(groups).tolist() == [100] * 6
    for group in range(5):
        assert counts[groups == group].min() > counts[groups == group + 1].max()


def test_ids_of_a_group_share_its_gates() -> None:
    table, store = build()
    with torch.no_grad():
        table.gates[2] = 0.25
    ratios = read(table, store, torch.arange(600)) / store.rows("f")
    assert torch.allclose(ratios[200:300], torch.tensor(0.25)) and torch.allclose(ratios[300:], torch.tensor(1.0))
    read(table, store, torch.tensor([250, 251])).sum().backward()
    assert table.gates.grad is not None
    assert table.gates.grad.abs().sum(1).nonzero().flatten().tolist() == [2]


def test_gates_stay_between_zero_and_one() -> None:
    table, store = build()
    with torch.no_grad():
        table.gates[0], table.gates[1] = 1.5, -0.5
    assert (read(table.eval(), store, torch.tensor([0])) == store.rows("f")[0]).all()
    assert (read(table, store, torch.tensor([150])) == 0).all() and table.gates[0, 0] == 1.5
    total = read(table.train(), store, torch.tensor([0, 150])) + read(table, store, torch.tensor([1, 151]))
    assert table.gates.amin() == 0 and table.gates.amax() == 1
    total.sum().backward()  # two lookups in one step
    assert len(table.take_losses()) == 1


def test_a_gate_of_a_number_nobody_needs_closes() -> None:
    """The target reads the first number alone; the penalty closes the second gate."""
    table, store = build(60, 2, groups=1, l1=0.5)
    store.rows("f").copy_(torch.randn(60, 2))
    ids, rows = torch.arange(60), store.rows("f").clone()
    (gates,) = table.search_parameters()
    for _ in range(40):
        loss = (read(table, store, ids)[:, 0] - rows[:, 0]).square().sum() + table.take_losses()[0]
        (gradient,) = torch.autograd.grad(loss, [gates])
        with torch.no_grad():
            gates -= 0.05 * gradient.sign()
    found = table.settle(store)
    assert found["kept_weights"] == 60 and found["sparsity"] == 0.5
    assert (store.rows("f")[:, 1] == 0).all() and (store.rows("f")[:, 0] != 0).all()


def test_settling_keeps_the_largest_products_within_the_ratio() -> None:
    table, store = build(ratio=0.2)
    with torch.no_grad():
        table.gates.copy_(torch.rand(6, 8))
    products = read(table.eval(), store, torch.arange(600)).abs()
    found = table.settle(store)
    assert found["kept_weights"] == table.weights
    kept = table.get_buffer("mask")
    assert products[kept].min() >= products[~kept].max()
    served = table.compact(store)
    assert served.overhead_bytes <= sum(table.served_rows.values()) <= 0.2 * 4 * 600 * 8
    ids = torch.tensor([[0, 599], [300, 1]])
    torch.testing.assert_close(served.decode([], ids), read(table, store, ids.flatten()).view(2, 2, 8))


def test_after_settling_gates_no_longer_count_and_pruned_weights_stay_zero() -> None:
    table, store = build(ratio=0.2)
    table.settle(store)
    with torch.no_grad():
        table.gates.fill_(0.5)
    before = store.rows("f").clone()
    mask = table.get_buffer("mask")
    vectors = read(table, store, torch.arange(600))
    assert torch.equal(vectors, torch.where(mask, before, 0.0))
    vectors.sum().backward()
    assert torch.equal(store.rows("f") != before, mask)
    assert table.gates.grad is None or (table.gates.grad == 0).all()


def test_settling_twice_multiplies_the_gates_in_once() -> None:
    table, store = build()
    with torch.no_grad():
        table.gates.fill_(0.5)
    before = store.rows("f").clone()
    table.settle(store)
    table.settle(store)
    torch.testing.assert_close(store.rows("f"), 0.5 * before)


def test_small_features_and_first_order_weights() -> None:
    counts = np.arange(600, 0, -1)
    spec = TableSpec("f", 600, 8, counts=counts)
    weights = TableSpec("f", 600, 1, linear=True, counts=counts)
    assert isinstance(AutoSrhConfig(exact_below=600).build([spec], 0)["f"], FullTable)
    assert isinstance(AutoSrhConfig().build([weights], 0)["f"], FullTable)
    assert type(AutoSrhConfig(ratio=0.3).build([weights], 0)["f"]) is MaskedTable


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f': table 'autosrh' needs the training count of every id"):
        AutoSrhConfig().build([TableSpec("f", 600, 8)], 0)
    table, store = build()
    with pytest.raises(ConfigError, match="feature 'f': its weights are not pruned yet"):
        table.compact(store)
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'autosrh' needs its size"):
        AutoSrhConfig().build([TableSpec("f", None, 8)], 0)
