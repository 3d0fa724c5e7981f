"""Integer tables: rounding without bias, ends of the range, scales, and what is served."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import SGD, PlainStore
from recembed.tables import FullTable, Int8Config, Int16Config, IntegerTable, TableSpec
from recembed.tables.integer import ServedIntegers, random_codes

SPEC = TableSpec("f", 50, 8)
ALL = torch.arange(50)


def build(spec: TableSpec = SPEC, seed: int = 0, **options: Any) -> tuple[IntegerTable, PlainStore]:
    config = Int8Config.model_validate({"when": "training"} | options)
    table = config.build([spec], seed)["f"]
    assert isinstance(table, IntegerTable)
    return table, PlainStore(table.slots, optimizer=SGD(learning_rate=1.0))


def evaluated(table: IntegerTable, store: PlainStore) -> Tensor:
    return table.eval().decode([store.rows("f")], ALL)


def test_worked_by_hand() -> None:
    """At a scale of 0.5, 1.3 is 2.6 steps, so 3 to nearest; 100 is beyond 127 steps, -100 beyond -128."""
    table, store = build(scale=0.5)
    store.rows("f")[0] = torch.tensor([1.3, -1.3, 100.0, -100.0, 0.0, 0.2, 63.5, -64.0])
    expected = [1.5, -1.5, 63.5, -64.0, 0.0, 0.0, 63.5, -64.0]
    assert evaluated(table, store)[0].tolist() == expected
    served = table.compact(store)
    assert served.get_buffer("codes")[0].tolist() == [3, -3, 127, -128, 0, 0, 127, -128]
    assert served.get_buffer("codes").dtype == torch.int8 and served.get_buffer("scale").tolist() == [0.5]


def test_a_scale_per_row_worked_by_hand() -> None:
    """The largest number of the row is 127 steps of 0.02; 0.05 is 2.5 steps, and 2 is even."""
    table, store = build(scale="row")
    store.rows("f")[0] = torch.tensor([2.54, -0.06, 0.031, 0.0, 0.0, 0.0, 0.0, -1.27])
    torch.testing.assert_close(table.compact(store).get_buffer("scale")[0], torch.tensor([0.02]))
    assert table.compact(store).get_buffer("codes")[0].tolist() == [127, -3, 2, 0, 0, 0, 0, -64]


@pytest.mark.parametrize("bits", [8, 16])
def test_random_rounding_keeps_the_expected_value(bits: int) -> None:
    x = torch.tensor([0.0, 3.0, 0.1, 0.5, -0.25, -7.9, 100.37, -128.0 + 1e-3])
    draws = 20_000
    ids = torch.arange(draws)
    codes = random_codes(x.expand(draws, 8), bits, ids, torch.tensor([11]))
    assert ((codes == x.floor()) | (codes == x.floor() + 1)).all()
    share = x - x.floor()
    error = 4 * (share * (1 - share) / draws).sqrt()  # four standard deviations of the mean
    assert ((codes.mean(0) - x).abs() <= error + 1e-6).all()
    assert (codes[:, :2] == x[:2]).all(), "what lies on the grid stays there"


def test_noise_differs_between_ids_numbers_and_steps() -> None:
    half = torch.full((1000, 8), 0.5)
    ids, key = torch.arange(1000), torch.tensor([5])
    first, later = random_codes(half, 8, ids, key), random_codes(half, 8, ids, key + 1)
    for one, other in ((first, later), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        agree = (one == other).float().mean().item()
        assert abs(agree - 0.5) < 4 * 0.5 / one.numel() ** 0.5
    assert torch.equal(first[700:], random_codes(half[700:], 8, ids[700:], key)), "an id's noise is its own"


def test_numbers_out_of_range_saturate() -> None:
    table, store = build(scale=0.01)
    store.rows("f")[:, 0], store.rows("f")[:, 1] = 5.0, -5.0
    table.before_lookup(store, ALL)
    expected = torch.tensor([127 * 0.01, -128 * 0.01])
    torch.testing.assert_close(store.rows("f")[:, :2], expected.expand(50, 2))
    torch.testing.assert_close(evaluated(table, store)[:, :2], expected.expand(50, 2))
    found = table.settle(store)
    assert found["saturated"] == 0.25 and found["rounding_error"] < 1e-6


@pytest.mark.parametrize("scale", [0.01, "row"])
def test_a_lookup_rounds_the_rows_it_reads_and_no_others(scale: float | str) -> None:
    table, store = build(scale=scale)
    before = store.rows("f").clone()
    table.before_lookup(store, torch.tensor([4, 7, 4]))
    read = store.rows("f")[[4, 7]]
    steps = read / table.scale_of(before[[4, 7]])
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    assert (read != before[[4, 7]]).any(1).all()
    others = torch.ones(50, dtype=torch.bool)
    others[[4, 7]] = False
    assert torch.equal(store.rows("f")[others], before[others])


def test_steps_far_below_the_scale_are_not_lost() -> None:
    """800 steps of a hundredth of the scale move all 400 numbers by 8 scales; rounding to nearest would move none."""
    table, store = build(scale=0.01)
    store.rows("f").zero_()
    for _ in range(800):
        table.before_lookup(store, ALL)
        store.rows("f").add_(1e-4)
    table.before_lookup(store, ALL)
    deviation = 0.01 * (800 * 0.01 * 0.99) ** 0.5  # of one number; the mean is over 400 of them
    assert abs(store.rows("f").mean().item() - 0.08) < 4 * deviation / 400**0.5


def test_noise_goes_on_where_a_checkpoint_left_it() -> None:
    table, store = build(scale=0.01)
    table.before_lookup(store, ALL)
    again, copied = build(scale=0.01, seed=3)
    again.load_state_dict(table.state_dict())
    copied.load_state_dict(store.state_dict())
    for each, rows in ((table, store), (again, copied)):
        rows.rows("f").add_(0.003)
        each.before_lookup(rows, ALL)
    assert torch.equal(store.rows("f"), copied.rows("f"))


@pytest.mark.parametrize("scale", [0.01, "row"])
@pytest.mark.parametrize("when", ["training", "after"])
def test_served_vectors_are_those_of_evaluation_and_half_a_scale_from_the_rows(scale: float | str, when: str) -> None:
    table, store = build(scale=scale, when=when)
    rows = store.rows("f").clone()
    served = table.compact(store)
    vectors = served.decode([], ALL)
    assert isinstance(served, ServedIntegers) and torch.equal(vectors, evaluated(table, store))
    assert ((vectors - rows).abs() <= 0.5001 * table.scale_of(rows)).all() and (vectors != rows).any()
    assert served.overhead_bytes == sum(table.served_rows.values()) + table.served_overhead_bytes
    table.settle(store)
    torch.testing.assert_close(store.rows("f"), vectors)


def test_rounding_after_training_leaves_training_alone() -> None:
    table, store = build(when="after")
    assert not table.moves_rows and list(dict(table.named_buffers())) == ["scale"]
    assert torch.equal(table.train().decode([store.rows("f")], ALL), store.rows("f"))
    assert Int8Config().when == "after"


def test_bytes() -> None:
    assert build()[0].served_rows == {"f": 400} and build()[0].served_overhead_bytes == 4
    assert build(scale="row")[0].served_overhead_bytes == 200
    wide = Int16Config().build([SPEC], seed=0)["f"]
    assert wide.served_rows == {"f": 800} and wide.get_buffer("scale").item() * 32767 == pytest.approx(1.28, rel=1e-3)


def test_first_order_weights_and_tables_that_would_not_shrink() -> None:
    weights = TableSpec("f", 50, 1, linear=True)
    assert Int8Config().build([weights], seed=0)["f"].served_rows == {"f.linear": 50}
    assert isinstance(Int8Config(scale="row").build([weights], seed=0)["f"], FullTable)
    assert isinstance(Int8Config().build([TableSpec("f", 1, 1)], seed=0)["f"], FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'int16' needs its size"):
        Int16Config().build([TableSpec("f", None, 8)], seed=0)
    with pytest.raises(ValueError, match="greater than 0"):
        Int8Config(scale=0)
