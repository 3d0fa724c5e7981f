"""DeepLight: the schedule, what is pruned, what may grow again, and what is served."""

from typing import Any

import pytest
import torch

from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import ConfigError
from recembed.rows import SGD, PlainStore
from recembed.tables import DeepLightConfig, DeepLightTable, FullTable, Table, TableSpec
from tests.embedding.fixtures import batch, fitted


def build(ids: int = 1000, width: int = 16, **options: Any) -> tuple[DeepLightTable, PlainStore]:
    table = DeepLightConfig.model_validate({"exact_below": 0} | options).build([TableSpec("f", ids, width)], 0)["f"]
    assert isinstance(table, DeepLightTable)
    return table, PlainStore(list(table.slots), optimizer=SGD(learning_rate=1.0))


def step(table: DeepLightTable, store: PlainStore, times: int = 1) -> None:
    for _ in range(times):
        table.before_lookup(store, torch.arange(3))


def share_of_zeros(store: PlainStore) -> float:
    return float((store.rows("f") == 0).float().mean())


def test_worked_by_hand() -> None:
    """Half of four weights are to go; after ``period`` steps at ``decay`` 0.5 half of that, one weight, is gone."""
    table = DeepLightTable(TableSpec("f", 2, 2), weights=2, warm_up=0, every=1, decay=0.5, period=2)
    store = PlainStore(list(table.slots), optimizer=None)
    store.rows("f").copy_(torch.tensor([[0.4, -0.1], [0.3, -0.2]]))
    step(table, store)
    assert store.rows("f").tolist() == torch.tensor([[0.4, -0.1], [0.3, -0.2]]).tolist()
    step(table, store, 2)
    torch.testing.assert_close(store.rows("f"), torch.tensor([[0.4, 0.0], [0.3, -0.2]]), rtol=0, atol=0)
    assert table.settle(store) == {"kept_weights": 2.0, "sparsity": 0.5}
    torch.testing.assert_close(
        table.decode([store.rows("f")], torch.arange(2)), torch.tensor([[0.4, 0.0], [0.3, 0.0]]), rtol=0, atol=0
    )


def test_sparsity_follows_the_schedule() -> None:
    table, store = build(ratio=0.1, warm_up=20, every=10, period=100)
    for now in range(600):
        step(table, store)
        pruned = now - now % 10
        expected = 0 if now < 20 else (1 - 878 / 16_000) * (1 - 0.99 ** ((pruned - 20) / 100))
        assert share_of_zeros(store) == pytest.approx(expected, abs=1e-3), now


def test_the_schedule_holds_while_rows_move() -> None:
    settings = {
        "embedding_dim": 8,
        "table": {"kind": "deeplight", "ratio": 0.2, "warm_up": 2, "every": 4, "period": 1, "exact_below": 20},
        "row_store": "torch",
    }
    embedding = FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(settings))
    table = embedding.tables["user"]
    assert isinstance(table, DeepLightTable)
    for now in range(20):
        embedded = embedding(batch(64, seed=now))
        if now >= 2 and now % 4 == 2:
            zeros = float((embedding.store.rows("user") == 0).float().mean())
            assert zeros == pytest.approx(table.sparsity_at(now), abs=1e-3)
        embedded.concat().sin().sum().backward()
    assert int(table.get_buffer("steps")) == 20  # history shares the items; a step counts once
    item = embedding.tables["item"]
    assert int(item.get_buffer("steps")) == 20


def test_pruned_weights_may_grow_until_the_mask_is_settled() -> None:
    table, store = build(100, 4, sparsity=0.5, warm_up=0, every=1, period=0.01)
    step(table, store, 2)
    pruned = (store.rows("f") == 0).nonzero()[0]
    ids = pruned[:1]

    def move() -> float:
        rows = store(table.address(ids).flatten(), 4)
        table.decode([rows], ids).sum().backward()
        return float(table.decode([store.rows("f")[ids]], ids)[0, pruned[1]])

    assert move() == -1.0
    table.settle(store)
    kept = table.get_buffer("mask").clone()
    settled = (~kept).nonzero()[0]
    assert kept[tuple(pruned)] and kept.sum() == 200  # what grew is among the largest now
    ids, pruned = settled[:1], settled
    assert move() == 0.0
    step(table, store, 3)
    assert torch.equal(table.get_buffer("mask"), kept)


def test_settling_again_brings_nothing_back() -> None:
    table, store = build(ratio=0.1)
    table.settle(store)
    kept = table.get_buffer("mask").clone()
    store.rows("f").copy_(torch.randn(1000, 16))
    table.settle(store)
    assert torch.equal(table.get_buffer("mask"), kept)


def test_served_bytes_meet_the_ratio() -> None:
    for ratio in (0.01, 0.1, 0.5):
        table, store = build(ratio=ratio)
        planned = sum(table.served_rows.values()) + table.served_overhead_bytes
        table.settle(store)
        served = table.compact(store)
        assert served.overhead_bytes == planned <= ratio * 64_000
        rows = torch.where(table.get_buffer("mask"), store.rows("f"), 0.0)
        assert torch.equal(served.decode([], torch.arange(1000)), rows)
    assert table.overhead_bytes == 16_000 + 1 + 8  # mask, whether it is settled, steps


def test_resumed_steps_go_on_bit_for_bit() -> None:
    whole, store = build(200, 8, ratio=0.2, warm_up=3, every=4, period=0.1)
    first, part = build(200, 8, ratio=0.2, warm_up=3, every=4, period=0.1)
    step(whole, store, 30)
    step(first, part, 13)
    second, rest = build(200, 8, ratio=0.2, warm_up=3, every=4, period=0.1)
    second.load_state_dict(first.state_dict())
    rest.load_state_dict(part.state_dict())
    step(second, rest, 17)
    assert torch.equal(rest.rows("f"), store.rows("f")) and share_of_zeros(rest) > 0.5


def test_first_order_weights_are_pruned_alike() -> None:
    table: Table = DeepLightConfig(ratio=0.1).build([TableSpec("f", 1000, 1, linear=True)], 0)["f"]
    assert isinstance(table, DeepLightTable) and table.served_rows == {"f.linear": 400}


def test_a_feature_that_would_not_shrink_keeps_its_exact_table() -> None:
    spec = TableSpec("f", 1000, 16)
    assert isinstance(DeepLightConfig(sparsity=0.02).build([spec], 0)["f"], FullTable)
    assert isinstance(DeepLightConfig(exact_below=1000).build([spec], 0)["f"], FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="sparsity and ratio are both given; keep one of them"):
        DeepLightConfig(ratio=0.1, sparsity=0.9)
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'deeplight' needs its size"):
        DeepLightConfig().build([TableSpec("f", None, 8)], 0)
    table, store = build()
    with pytest.raises(ConfigError, match=r"feature 'f': its weights are not pruned yet.*run a stage with do: settle"):
        table.compact(store)
