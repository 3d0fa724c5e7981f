"""ALPT tables: the gradient of a scale, rounding by it, and what is served."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import SGD, Init, PlainStore
from recembed.tables import AlptConfig, AlptTable, FullTable, TableSpec

ALL = torch.arange(50)


def build(**options: Any) -> tuple[AlptTable, PlainStore]:
    spec = TableSpec("f", 50, 8, init=Init(0.05, "uniform"))
    table = AlptConfig.model_validate({"scale_rate": 1.0} | options).build([spec], seed=0)["f"]
    assert isinstance(table, AlptTable)
    return table, PlainStore(table.slots, optimizer=SGD(learning_rate=1.0))


def vectors(table: AlptTable, store: PlainStore) -> Tensor:
    return table.decode([store.rows("f"), store.rows("f.scale")], ALL)


def test_worked_by_hand() -> None:
    """A scale of 0.1 that has doubled is 0.2: 0.5 is 2.5 steps (2 is even), 30 is beyond 127 steps."""
    table, store = build(scale=0.1)
    store.rows("f.scale")[3] = math.log(2)
    store.rows("f")[3] = torch.tensor([0.5, 0.71, -0.71, 30.0, -30.0, 0.0, 0.09, 0.11])
    expected = torch.tensor([0.4, 0.8, -0.8, 25.4, -25.6, 0.0, 0.0, 0.2])
    torch.testing.assert_close(vectors(table.eval(), store)[3], expected)
    served = table.compact(store)
    assert served.get_buffer("codes")[3].tolist() == [2, 4, -4, 127, -128, 0, 0, 1]


def test_gradient_of_a_scale_worked_by_hand() -> None:
    """LSQ: ``code - ratio`` inside the range, the end of the range outside it; times scale, times 1/sqrt(N D 127)."""
    table, store = build(scale=0.5)
    row = torch.tensor([1.3, -0.4, 100.0, -100.0, 0.5, 0.0, 0.0, 0.0])  # 2.6, -0.8, 200, -200, 1 and 0 steps
    store.rows("f")[3] = row
    table.before_lookup(store, torch.tensor([3]))
    rounded = store.rows("f")[[3]].clone().requires_grad_()
    logarithm = store.rows("f.scale")[[3]].clone().requires_grad_()
    weights = torch.tensor([[1.0, 2.0, 0.5, 0.25, 3.0, 1.0, 1.0, 1.0]])
    out = table.decode([rounded, logarithm], torch.tensor([3]))
    assert torch.equal(out, rounded), "the scale adds nothing to the vector itself"
    (out * weights).sum().backward()
    codes = rounded.detach()[0] / 0.5
    slopes = 1 * (codes[0] - 2.6) + 2 * (codes[1] + 0.8) + 0.5 * 127 + 0.25 * -128
    expected = slopes * 0.5 / math.sqrt(1 * 8 * 127)
    torch.testing.assert_close(logarithm.grad, expected.view(1, 1))
    assert torch.equal(rounded.grad, weights), "the row learns straight through"


def test_scales_and_rows_learn_and_the_scale_follows_saturation() -> None:
    """The rows want to be 2, beyond 127 steps of 0.01: their scales must grow, as 1.27 does not suffice."""
    table, store = build(scale=0.01, scale_rate=3)
    first = int(store.first_row["f"])
    for _ in range(200):
        table.before_lookup(store, ALL)
        fetched = [store(ALL + first, 8), store(ALL, 1)]
        (0.05 * (table.decode(fetched, ALL) - 2).square()).sum().backward()
    scales = table.scale_of(store.rows("f.scale"))
    assert (scales > 0.012).all()
    assert (vectors(table.eval(), store) > 1.5).all()


def test_rows_read_lie_on_their_own_grid_and_others_stay() -> None:
    table, store = build(scale=0.01)
    store.rows("f.scale")[4] = 1.0
    before = store.rows("f").clone()
    table.before_lookup(store, torch.tensor([4, 7, 4]))
    steps = store.rows("f")[[4, 7]] / torch.tensor([[0.01 * math.e], [0.01]])
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    others = torch.ones(50, dtype=torch.bool)
    others[[4, 7]] = False
    assert torch.equal(store.rows("f")[others], before[others])


@pytest.mark.parametrize("bits", [8, 16])
def test_served_vectors_are_those_of_evaluation(bits: int) -> None:
    table, store = build(bits=bits)
    store.rows("f.scale").uniform_(-0.5, 0.5)
    expected = vectors(table.eval(), store)
    served = table.compact(store)
    assert torch.equal(served.decode([], ALL), expected)
    assert served.overhead_bytes == 50 * (8 * bits // 8 + 4) == sum(table.served_rows.values())
    found = table.settle(store)
    assert found["saturated"] == 0 and 0 < found["rounding_error"] <= found["scale"] / 2
    torch.testing.assert_close(store.rows("f"), expected)


def test_first_scale_is_that_of_lsq() -> None:
    table, _ = build()
    assert table.get_buffer("scale").item() == pytest.approx(2 * 0.025 / math.sqrt(127))


def test_first_order_weights_stay_exact() -> None:
    assert isinstance(AlptConfig().build([TableSpec("f", 50, 1, linear=True)], seed=0)["f"], FullTable)
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'alpt' needs its size"):
        AlptConfig().build([TableSpec("f", None, 8)], seed=0)
