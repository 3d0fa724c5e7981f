"""PEP: soft thresholds, what moves them, the mask they leave, and what is served."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import SGD, PlainStore
from recembed.tables import FullTable, PepConfig, PepTable, TableSpec
from recembed.tables.masked import MaskedTable
from recembed.tables.pep import soft_threshold


def build(ids: int = 1000, width: int = 16, **options: Any) -> tuple[PepTable, PlainStore]:
    table = PepConfig.model_validate({"exact_below": 0} | options).build([TableSpec("f", ids, width)], 0)["f"]
    assert isinstance(table, PepTable)
    return table, PlainStore(list(table.slots), optimizer=SGD(learning_rate=0.1))


def read(table: PepTable, store: PlainStore, ids: Tensor) -> Tensor:
    rows = [
        store(places + store.first_row[slot.name], slot.embedding_dim)
        for places, slot in zip(table.address(ids).unbind(-1), table.slots, strict=True)
    ]
    return table.decode(rows, ids)


def test_worked_by_hand() -> None:
    """sigmoid(0) = 0.5 and sigmoid(-ln 3) = 0.25 are taken off the first and the second number of each row."""
    table, store = build(2, 2)
    assert table.thresholds is not None
    table.thresholds.data.copy_(torch.tensor([0.0, -torch.tensor(3.0).log()]))
    rows = torch.tensor([[0.75, 0.75], [-0.25, -1.0]])
    torch.testing.assert_close(table.decode([rows], torch.arange(2)), torch.tensor([[0.25, 0.5], [0.0, -0.75]]))
    store.rows("f").copy_(rows)
    assert table.settle(store) == {"kept_weights": 3.0, "sparsity": 0.25}
    assert table.decode([rows], torch.arange(2)).tolist() == [[0.75, 0.75], [0.0, -1.0]]


def test_what_is_below_its_threshold_is_zero_and_moves_nothing() -> None:
    weights = torch.tensor([0.1, -0.1, 0.3, -0.3], requires_grad=True)
    thresholds = torch.full((4,), -1.386294, requires_grad=True)  # sigmoid is 0.2
    pulled = soft_threshold(weights, torch.sigmoid(thresholds))
    pulled.sum().backward()
    assert weights.grad is not None and thresholds.grad is not None
    assert (pulled[:2] == 0).all() and torch.allclose(pulled[2:], torch.tensor([0.1, -0.1]))
    assert weights.grad.tolist() == [0.0, 0.0, 1.0, 1.0]
    torch.testing.assert_close(thresholds.grad, torch.tensor([0.0, 0.0, -0.16, 0.16]))  # -sign(x) * 0.2 * 0.8


@pytest.mark.parametrize("thresholds", ["feature", "dimension", "id", "weight"])
def test_each_granularity_moves_its_own_thresholds(thresholds: str) -> None:
    table, store = build(thresholds=thresholds, start=-2.0)
    store.rows("f").copy_(torch.rand(1000, 16) + 0.2)
    before = table._sigmoid(store.rows("f.thresholds") if len(table.slots) > 1 else None).detach().clone()
    assert before.shape == {"feature": (1,), "dimension": (16,), "id": (1000, 1), "weight": (1000, 16)}[thresholds]
    assert torch.allclose(before, torch.tensor(-2.0).sigmoid())
    read(table, store, torch.tensor([3, 5]))[:, :4].sum().backward()
    if table.thresholds is not None:
        moved = table.thresholds.grad != 0
        assert table.thresholds.ndim == 1  # weight decay is for matrices
        assert table.thresholds.learning_rate_factor == 10.0  # type: ignore[attr-defined]
        assert moved.tolist() == ([True] if thresholds == "feature" else [True] * 4 + [False] * 12)
        return
    moved = (store.rows("f.thresholds") != 0).nonzero().tolist()
    assert moved == [[i, d] for i in (3, 5) for d in range(1 if thresholds == "id" else 4)]
    after = table._sigmoid(store.rows("f.thresholds"))
    assert (after > before).sum() == len(moved)  # less of a positive weight was asked for: its threshold rose


def test_without_a_ratio_thresholds_decide() -> None:
    table, store = build(thresholds="weight", start=0.0)
    store.rows("f").copy_(torch.linspace(-1, 1, 16_000).view(1000, 16))
    table.settle(store)
    assert torch.equal(table.get_buffer("mask"), store.rows("f").abs() > 0.5)
    assert table.served_rows == {"f": 64_000}


def test_with_a_ratio_the_weights_furthest_above_their_thresholds_stay() -> None:
    table, store = build(ratio=0.1)
    assert table.thresholds is not None
    table.thresholds.data[0] = 4.0  # column 0 is far below its threshold
    scores = table.scores(store)
    found = table.settle(store)
    mask = table.get_buffer("mask")
    assert found == {"kept_weights": 878.0, "sparsity": 1 - 878 / 16_000} and mask.sum() == 878
    assert scores[mask].min() >= scores[~mask].max() and not mask[:, 0].any()


@pytest.mark.parametrize("thresholds", ["feature", "dimension", "id", "weight"])
def test_served_weights_are_the_retrained_ones_in_the_planned_bytes(thresholds: str) -> None:
    table, store = build(ratio=0.2, thresholds=thresholds)
    table.settle(store)
    mask = table.get_buffer("mask").clone()
    store.reset_parameters()  # retraining starts from the initial weights
    initial = store.rows("f").clone()
    ids = torch.arange(1000)
    assert torch.equal(read(table, store, ids), torch.where(mask, initial, 0.0))
    for _ in range(3):
        read(table, store, ids).sin().sum().backward()
    assert torch.equal(store.rows("f") != initial, mask)
    served = table.eval().compact(store)
    assert torch.equal(served.decode([], ids), read(table, store, ids))
    assert torch.equal(served.decode([], ids) != 0, mask)
    assert served.overhead_bytes == sum(table.served_rows.values()) + table.served_overhead_bytes <= 0.2 * 64_000


def test_the_mask_is_part_of_the_checkpoint() -> None:
    table, store = build(ratio=0.2)
    table.settle(store)
    again, _ = build(ratio=0.2)
    again.load_state_dict(table.state_dict())
    ids = torch.arange(1000)
    assert torch.equal(read(again, store, ids), read(table, store, ids))


def test_first_order_weights_are_exact_or_pruned_by_size() -> None:
    spec = TableSpec("f", 1000, 1, linear=True)
    assert isinstance(PepConfig().build([spec], 0)["f"], FullTable)
    table = PepConfig(ratio=0.1).build([spec], 0)["f"]
    assert isinstance(table, MaskedTable) and table.served_rows == {"f.linear": 400}
    store = PlainStore(list(table.slots), optimizer=None)
    store.rows("f.linear").copy_(torch.arange(-500, 500).unsqueeze(1))
    table.settle(store)
    served = table.compact(store).decode([], torch.arange(1000)).flatten()
    assert served.nonzero().flatten().tolist() == [*range(26), *range(976, 1000)]


def test_a_small_feature_keeps_its_exact_table() -> None:
    assert isinstance(PepConfig().build([TableSpec("f", 100, 16)], 0)["f"], FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'pep' needs its size"):
        PepConfig().build([TableSpec("f", None, 8)], 0)
    table, store = build()
    with pytest.raises(ConfigError, match=r"feature 'f': its weights are not pruned yet.*run a stage with do: settle"):
        table.compact(store)
