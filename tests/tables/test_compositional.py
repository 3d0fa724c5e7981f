"""Compositional tables: digits that tell every id apart, scales that match a plain row, budgets that hold."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recembed.errors import ConfigError
from recembed.rows import Init, PlainStore
from recembed.tables import CompositionalConfig, FullTable, Table, TableSpec
from recembed.tables.radix import balanced_radices, digits


def build(size: int, width: int = 8, *, linear: bool = False, init: Init | None = None, **settings: object) -> Table:
    config = CompositionalConfig.model_validate({"exact_below": 0} | settings)
    return config.build([TableSpec("f", size, width, init or Init(), linear=linear)], seed=0)["f"]


def test_worked_by_hand() -> None:
    """Id 23 with 10 remainder rows: remainder 3, quotient 2."""
    tables = {c: build(100, 2, num_embeddings=10, combine=c) for c in ("product", "sum", "concat")}
    assert tables["product"].address(torch.tensor([23, 9])).tolist() == [[3, 2], [9, 0]]
    rows = [torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, -1.0]])]
    assert tables["product"].decode(rows, torch.tensor([23])).tolist() == [[10.0, -3.0]]
    assert tables["sum"].decode(rows, torch.tensor([23])).tolist() == [[7.0, 2.0]]
    halves = [row[:, :1] for row in rows]
    assert tables["concat"].decode(halves, torch.tensor([23])).tolist() == [[2.0, 5.0]]


@given(st.integers(1, 3000), st.integers(2, 4))
def test_digits_tell_every_id_apart_and_stay_in_range(size: int, count: int) -> None:
    radices = balanced_radices(size, count)
    found = digits(torch.arange(size), radices)
    assert len(found.unique(dim=0)) == size
    assert (found < torch.tensor(radices)).all() and (found >= 0).all()


def test_equal_digits_are_shared_rows() -> None:
    table = build(100, num_embeddings=10)
    first, second = table.address(torch.tensor([31, 38])).tolist()
    assert first[1] == second[1] and first[0] != second[0]  # same quotient, other remainder


def test_square_root_sizes_are_the_smallest() -> None:
    rows = sum(slot.num_embeddings for slot in build(1000).slots)
    assert rows == min(m + -(-1000 // m) for m in range(1, 1001))


@given(st.integers(101, 50_000), st.floats(0.02, 0.99), st.sampled_from([2, 3, 4]), st.sampled_from(["sum", "concat"]))
def test_a_ratio_is_met_and_used_up(size: int, ratio: float, partitions: int, combine: str) -> None:
    table = build(size, 12, ratio=ratio, partitions=partitions, combine=combine)
    if isinstance(table, FullTable):
        return
    width = table.slots[0].embedding_dim
    rows = [slot.num_embeddings for slot in table.slots]
    budget = int(ratio * (size * 12 // width))
    smallest = sum(balanced_radices(size, partitions))
    assert sum(rows) <= max(budget, smallest)
    if smallest < budget:
        more = rows[0] + 1
        assert more > size or more + sum(balanced_radices(-(-size // more), partitions - 1)) > budget


@pytest.mark.parametrize(
    ("law", "combine", "partitions"), list(itertools.product(["normal", "uniform"], ["product", "sum"], [2, 3]))
)
def test_vectors_start_at_the_scale_of_a_plain_row(law: str, combine: str, partitions: int) -> None:
    table = build(40_000, 64, init=Init(0.02, law), combine=combine, partitions=partitions)  # type: ignore[arg-type]
    store = PlainStore(table.slots, optimizer=None)
    ids = torch.arange(40_000)
    addresses = table.address(ids)
    vectors = table.decode([store.rows(slot.name)[addresses[:, i]] for i, slot in enumerate(table.slots)], ids)
    expected = 0.02 if law == "normal" else 0.02 / 3**0.5
    assert vectors.std().item() == pytest.approx(expected, rel=0.1)
    assert abs(vectors.mean().item()) < 0.1 * expected  # rows of one sign would show here


def test_first_order_weights_are_summed() -> None:
    table = build(1000, 1, linear=True)
    assert table.additive and [slot.name for slot in table.slots] == ["f.linear.digit_0", "f.linear.digit_1"]


def test_a_feature_that_would_not_shrink_keeps_its_exact_table() -> None:
    assert isinstance(build(6), FullTable) is False  # 3 + 2 rows
    assert isinstance(build(5), FullTable)  # 3 + 2 rows
    assert isinstance(build(1000, num_embeddings=999), FullTable)
    assert isinstance(build(100, exact_below=100), FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f': partitions = 3 does not divide embedding_dim = 8"):
        build(1000, partitions=3, combine="concat")
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'compositional' needs its size"):
        CompositionalConfig().build([TableSpec("f", None, 8)], seed=0)
    with pytest.raises(ValueError, match="num_embeddings and ratio are both given"):
        CompositionalConfig(num_embeddings=10, ratio=0.5)
