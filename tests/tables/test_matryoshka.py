"""Matryoshka: prefixes drawn in training, one served, around other methods."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import SGD, PlainStore
from recembed.tables import (
    FullTable,
    HashedTable,
    MatryoshkaConfig,
    MatryoshkaTable,
    ServedTable,
    Table,
    TableSpec,
    parse_table,
)
from recembed.tables.cut import CutRows, CutVectors


def specs(*names: str, ids: int = 500, width: int = 8) -> list[TableSpec]:
    return [TableSpec(name, ids, width, counts=np.arange(ids, 0, -1), reserved_ids=1) for name in names or ("f",)]


def build(**options: Any) -> tuple[MatryoshkaTable, PlainStore]:
    table = MatryoshkaConfig.model_validate(options).build(specs(), 0)["f"]
    assert isinstance(table, MatryoshkaTable)
    return table, PlainStore(list(table.slots), optimizer=SGD(learning_rate=0.1))


def read(table: Table, store: PlainStore, ids: Tensor) -> Tensor:
    address = table.address(ids)
    rows = [store(address[..., p] + store.first_row[s.name], s.embedding_dim) for p, s in enumerate(table.slots)]
    return table.decode(rows, ids)


def test_worked_by_hand() -> None:
    """Of (1, 2, 3, 4) width 2 serves (1, 2, 0, 0); training gives a prefix of 1, 2 or 4 numbers."""
    config = MatryoshkaConfig(widths=(1, 2, 4), serve_width=2)
    table = config.build(specs(width=4), 0)["f"]
    rows = torch.arange(1.0, 5.0).expand(300, 4)
    assert table.eval().decode([rows[:1]], torch.tensor([0])).tolist() == [[1.0, 2.0, 0.0, 0.0]]
    seen = {tuple(row) for row in table.train().decode([rows], torch.arange(300)).tolist()}
    assert seen == {(1.0, 0.0, 0.0, 0.0), (1.0, 2.0, 0.0, 0.0), (1.0, 2.0, 3.0, 4.0)}


def test_widths_are_drawn_uniformly_and_by_place_and_lookup() -> None:
    table, _ = build(widths=(2, 4, 8))
    draws = torch.stack([table._draw(torch.zeros(3000, dtype=torch.int64)) for _ in range(4)])
    counts = torch.bincount(draws.flatten(), minlength=3)
    assert ((counts - 4000) ** 2 / 4000).sum() < 20  # chi-square, 2 degrees of freedom
    pairs = torch.bincount(draws[0] * 3 + draws[1], minlength=9)
    assert ((pairs - 333.3) ** 2 / 333.3).sum() < 35  # lookups are independent
    assert torch.equal(build(widths=(2, 4, 8))[0]._draw(torch.zeros(3000, dtype=torch.int64)), draws[0])


def test_a_prefix_does_not_see_the_numbers_after_it() -> None:
    table, store = build(widths=(4, 8), serve_width=4)
    ids = torch.arange(500)
    before = read(table.eval(), store, ids).clone()
    store.rows("f")[:, 4:] = 1e6
    assert torch.equal(read(table, store, ids), before) and (before[:, 4:] == 0).all()


def test_the_expected_loss_is_the_mean_of_the_nested_losses() -> None:
    """One row, target 1: losses (w . prefix - 1)^2 at 1, 2 and 4 numbers are 0, 4 and 81; their mean is 85 / 3."""
    table = MatryoshkaConfig(widths=(1, 2, 4)).build(specs(width=4), 0)["f"]
    row, weights = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(4)
    nested = [(row[:width] @ weights[:width] - 1) ** 2 for width in (1, 2, 4)]
    assert [loss.item() for loss in nested] == [0.0, 4.0, 81.0]
    drawn = table.decode([row.expand(60_000, 4)], torch.zeros(60_000, dtype=torch.int64))
    sampled = (drawn @ weights - 1).square()
    assert sampled.mean().item() == pytest.approx(85 / 3, abs=4 * 37.3 / 60_000**0.5)
    assert set(sampled.tolist()) == {0.0, 4.0, 81.0}


def test_gradients_are_those_of_the_nested_losses() -> None:
    """Number i is in the prefixes that reach it: 1, 2/3 and 1/3 of the vectors."""
    table = MatryoshkaConfig(widths=(1, 2, 4)).build(specs(width=4), 0)["f"]
    rows = torch.zeros(30_000, 4, requires_grad=True)
    table.decode([rows], torch.zeros(30_000, dtype=torch.int64)).sum().backward()
    torch.testing.assert_close(rows.grad.mean(0), torch.tensor([1, 2 / 3, 1 / 3, 1 / 3]), rtol=0, atol=0.015)


def test_a_trained_prefix_beats_other_numbers_of_the_same_count() -> None:
    """Rows fitted to four hidden numbers per id: served at 4 of 8, the prefix keeps more than any other quarter does."""
    torch.manual_seed(0)
    hidden = torch.randn(500, 4) * torch.tensor([3.0, 2.0, 1.0, 0.5])
    table, store = build(widths=(2, 4, 8))
    readout = torch.nn.Linear(8, 4)
    optimizer = torch.optim.Adam(readout.parameters(), lr=0.01)
    store.set_learning_rate(0.3)
    for _ in range(400):
        loss = (readout(read(table, store, torch.arange(500))) - hidden).square().sum(1).sum() / 50
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rows = store.rows("f")

    def error(places: tuple[int, ...]) -> float:
        kept = torch.zeros(8)
        kept[list(places)] = 1
        with torch.no_grad():
            return float((readout(rows * kept) - hidden).square().mean())

    for width in (2, 4):
        prefix = error(tuple(range(width)))
        others = [error(places) for places in itertools.combinations(range(8), width)]
        assert prefix < 0.6 * float(np.mean(others))
        assert prefix <= np.quantile(others, 0.1)
    assert error(tuple(range(8))) < error((0, 1, 2, 3)) < error((0, 1))


@pytest.mark.parametrize(
    ("inner", "form"),
    [
        ("full", ServedTable),
        ({"kind": "hashed", "ratio": 0.5}, CutRows),
        ({"kind": "hashed", "ratio": 0.5, "probes": 2, "combine": "sum"}, CutRows),
        ({"kind": "adaptive", "ratio": 0.5}, CutRows),
        ({"kind": "hashed", "ratio": 0.5, "probes": 2}, CutVectors),
        ({"kind": "mixed_dimension", "ratio": 0.5}, CutVectors),
        ({"kind": "deep_hash", "ratio": 0.5, "hashes": 16, "layers": 2}, CutVectors),
    ],
)
def test_compact_serves_the_prefix_of_any_table(inner: Any, form: type[Table]) -> None:
    table, store = build(table=inner, widths=(2, 8), serve_width=2)
    ids = torch.tensor([0, 3, 499])
    expected = read(table.eval(), store, ids).detach()
    served = table.compact(store)
    assert isinstance(served, form) and served.reads == table.reads
    torch.testing.assert_close(read(served, store, ids).detach(), expected)
    own = sum(slot.bytes for slot in {slot.name: slot for slot in served.slots}.values()) + served.overhead_bytes
    assert own <= sum(table.served_rows.values()) + table.served_overhead_bytes
    if form is not CutVectors:
        assert sum(table.served_rows.values()) == sum({s.name: s.bytes for s in table.slots}.values()) // 4


def test_a_pruned_table_inside_is_settled_and_cut() -> None:
    inner = {"kind": "optembed", "exact_below": 0}
    table, store = build(table=inner, widths=(2, 8), serve_width=2)
    with pytest.raises(ConfigError, match="settle"):
        table.compact(store)
    assert table.settle(store)
    ids = torch.arange(500)
    expected = read(table.eval(), store, ids).detach()
    torch.testing.assert_close(read(table.compact(store), store, ids).detach(), expected)


def test_everything_else_is_the_table_inside() -> None:
    table, store = build(table={"kind": "autodim", "exact_below": 0})
    inner = table.inner
    assert table.search_parameters() == inner.search_parameters() != []
    assert table.settle(store) == inner.settle(store)
    inner.add_loss(torch.tensor(2.0))
    assert table.take_losses() == [torch.tensor(2.0)] and table.take_losses() == []
    hashed, _ = build(table={"kind": "hashed", "ratio": 0.5})
    ids = torch.arange(20)
    assert isinstance(hashed.inner, HashedTable) and hashed.reads == "keys"
    assert torch.equal(hashed.address(ids), hashed.inner.address(ids))
    assert torch.equal(read(table.eval(), store, ids), read(inner.eval(), store, ids))  # all widths are served


def test_the_stages_are_those_of_the_table_inside() -> None:
    autodim = parse_table("autodim")
    assert MatryoshkaConfig(table=autodim).recipe == autodim.recipe != ()
    assert MatryoshkaConfig.recipe == MatryoshkaConfig().recipe == ()


def test_first_order_weights_are_those_of_the_table_inside() -> None:
    linear = TableSpec("f", 500, 1, linear=True, vector_dim=8)
    assert type(MatryoshkaConfig().build([linear], 0)["f"]) is FullTable


def test_shared_rows_stay_whole() -> None:
    inner = {"kind": "multiplexed", "num_embeddings": 50, "exact_below": 0}
    config = MatryoshkaConfig(table=parse_table(inner), widths=(2, 8), serve_width=2)
    tables = config.build(specs("f", "g"), 0)
    assert tables["f"].slots == tables["g"].slots
    assert tables["f"].served_rows == tables["g"].served_rows == {"multiplexed": 4 * 50 * 8}


def test_a_budget_picks_the_served_width_or_sizes_the_table_inside() -> None:
    full = MatryoshkaConfig(widths=(2, 4, 8))
    for ratio, width in ((1.0, 8), (0.6, 4), (0.5, 4), (0.25, 2)):
        table = full.resized(ratio).build(specs(), 0)["f"]
        assert isinstance(table, MatryoshkaTable) and table.serve_width == width
    hashed = MatryoshkaConfig(table=parse_table("hashed")).resized(0.1)
    assert hashed.ratio is None and hashed.table == parse_table({"kind": "hashed", "ratio": 0.1})
    assert MatryoshkaConfig(serve_width=8).resized(0.1).ratio is None


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"has widths \[2, 4\]; the last must be the 8 numbers"):
        build(widths=(2, 4))
    with pytest.raises(ConfigError, match=r"serve_width = 3 is not among the widths \[2, 4, 8\]"):
        build(serve_width=3)
    with pytest.raises(ConfigError, match=r"ratio = 0.1: table 'matryoshka' serves at least 0.1250 of its bytes"):
        build(ratio=0.1)
    with pytest.raises(ConfigError, match=r"ratio = 0.2: table 'matryoshka' serves at least 0.5000 of its bytes"):
        build(ratio=0.2, widths=(4, 8))
    with pytest.raises(ConfigError, match="serve_width and ratio are both given"):
        parse_table({"kind": "matryoshka", "ratio": 0.5, "serve_width": 4})
    with pytest.raises(ConfigError, match=r"ratio belongs to table 'hashed', which has one: set table\.ratio"):
        parse_table({"kind": "matryoshka", "table": "hashed", "ratio": 0.5})
    with pytest.raises(ConfigError, match="'matryoshka' holds another one"):
        parse_table({"kind": "matryoshka", "table": "matryoshka"})
    with pytest.raises(ConfigError, match="table kind 'hash' is not known; did you mean"):
        parse_table({"kind": "matryoshka", "table": "hash"})
