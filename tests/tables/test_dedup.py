"""Dedup: which blocks are merged, what the shared block is, and how many are served."""

from typing import Any

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.rows import SGD, PlainStore
from recembed.tables import DedupConfig, DedupTable, FullTable, HashedTable, Table, TableSpec
from recembed.tables.dedup import Blocks
from recembed.tables.similar_blocks import merge_nearest, merge_similar


def build(spec: TableSpec, **options: Any) -> Table:
    return DedupConfig.model_validate({"exact_below": 0} | options).build([spec], seed=7)[spec.name]


def dedup(size: int, width: int, counts: np.ndarray | None = None, **options: Any) -> tuple[DedupTable, PlainStore]:
    table = build(TableSpec("f", size, width, counts=counts), **options)
    assert isinstance(table, DedupTable)
    return table, PlainStore(table.slots, optimizer=SGD(learning_rate=0.1))


def vectors(table: Table, store: PlainStore, size: int) -> torch.Tensor:
    addresses = table.address(torch.arange(size)).flatten()
    return table.decode([store(addresses, store.stack(table.embedding_dim).shape[1])], torch.arange(size))


def test_worked_by_hand() -> None:
    """Six ids, blocks of two: blocks 0 and 2 agree within a tenth of the rms 3; ids 0, 1, 4, 5 have weights 4, 1, 1, 3."""
    table, store = dedup(6, 1, np.array([3, 0, 1, 1, 0, 2]), ratio=0.95, block_rows=2)
    store.rows("f").copy_(torch.tensor([[3.0], [1.0], [2.0], [5.0], [3.2], [1.2]]))
    assert table.address(torch.arange(6)).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert table.settle(store) == {"blocks": 3, "unlike_blocks": 2, "kept_blocks": 2}
    assert table.address(torch.arange(6)).flatten().tolist() == [0, 1, 2, 3, 0, 1]
    expected = torch.tensor([(4 * 3 + 3.2) / 5, (1 + 3 * 1.2) / 4, 2, 5])
    torch.testing.assert_close(store.rows("f")[:4, 0], expected)


def test_equal_blocks_are_found_whatever_the_hashes_and_others_are_left_alone() -> None:
    different = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    blocks = torch.cat([different, different[:20], different[:5]])
    for seed in range(5):
        leader = merge_similar(blocks, tolerance=1e-3, similarity=0.9, bands=1, hashes=4, seed=seed)
        assert leader.tolist() == [*range(50), *range(20), *range(5)]


@pytest.mark.parametrize(("agreeing", "merged"), [(6, False), (7, True)])
def test_similarity_is_the_share_of_numbers_within_the_tolerance(agreeing: int, merged: bool) -> None:
    block = torch.arange(10.0)
    other = block + torch.where(torch.arange(10) < agreeing, 0.0099, 0.02)
    leader = merge_similar(torch.stack([block, other]), tolerance=0.01, similarity=0.7, bands=90, hashes=1, seed=0)
    assert leader.tolist() == [0, 0 if merged else 1]


def test_more_bands_find_more_pairs_and_every_block_is_like_its_leader() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(2000, 16, generator=generator)
    blocks = torch.cat([first, first + 0.01 * torch.randn(2000, 16, generator=generator)])
    found = []
    for bands in (1, 2, 20):
        leader = merge_similar(blocks, tolerance=0.05, similarity=0.9, bands=bands, hashes=4, seed=0)
        share = ((blocks - blocks[leader]).abs() <= 0.05).float().mean(1)
        assert (share >= 0.9).all() and torch.equal(leader[leader], leader)
        found.append(int((leader[2000:] == torch.arange(2000)).sum()))
    assert found[0] < found[1] < found[2] == 2000


def test_the_heaviest_blocks_stay_and_the_others_join_the_nearest() -> None:
    blocks = torch.tensor([[0.0], [1.0], [10.0], [9.0], [4.0]])
    leader = torch.tensor([0, 1, 2, 3, 1])  # 4 was found to be like 1
    merged = merge_nearest(blocks, leader, torch.tensor([1, 2, 5, 1, 2]), keep=2)
    assert merged.tolist() == [1, 1, 2, 2, 1]
    assert merge_nearest(blocks, leader, torch.tensor([1, 2, 5, 1, 2]), keep=4) is leader


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.5])
def test_what_is_served_fits_the_plan(ratio: float) -> None:
    table, store = dedup(5000, 16, np.arange(5000, 0, -1), ratio=ratio)
    planned = sum(table.served_rows.values()) + table.served_overhead_bytes
    assert 0.9 * ratio < planned / (5000 * 16 * 4) <= ratio
    found = table.settle(store)
    assert found["kept_blocks"] == table.blocks.unique
    served = table.compact(store)
    assert served.overhead_bytes == planned
    assert torch.equal(served.decode([], torch.arange(5000)), vectors(table.eval(), store, 5000))


def test_frequent_ids_keep_blocks_of_their_own() -> None:
    table, store = dedup(1000, 8, np.arange(1000, 0, -1), ratio=0.3, block_rows=1)
    before = store.rows("f").clone()
    table.settle(store)
    kept = table.blocks.unique
    assert table.address(torch.arange(kept)).flatten().tolist() == list(range(kept))
    assert torch.equal(table.address(torch.arange(1000)).unique(), torch.arange(kept))
    weights = torch.arange(1001.0, 1.0, -1)
    members = table.address(torch.arange(1000)).flatten() == 3
    mean = (before * weights[:, None])[members].sum(0) / weights[members].sum()
    torch.testing.assert_close(store.rows("f")[3], mean)


def test_fine_tuning_moves_the_shared_block_and_settling_again_changes_nothing() -> None:
    table, store = dedup(6, 1, ratio=0.95, block_rows=2)
    store.rows("f").copy_(torch.tensor([[3.0], [1.0], [2.0], [5.0], [3.2], [1.2]]))
    table.settle(store)
    rows = store.rows("f").clone()
    vectors(table, store, 6).sum().backward()
    torch.testing.assert_close(store.rows("f")[:, 0], rows[:, 0] - 0.1 * torch.tensor([2.0, 2, 1, 1, 0, 0]))
    tuned = store.rows("f").clone()
    assert table.settle(store)["kept_blocks"] == 2
    torch.testing.assert_close(store.rows("f"), tuned)


def test_a_loaded_map_decides() -> None:
    table, store = dedup(1000, 8, ratio=0.3)
    table.settle(store)
    other, _ = dedup(1000, 8, ratio=0.3)
    other.load_state_dict(table.state_dict())
    ids = torch.arange(1000)
    assert torch.equal(other.address(ids), table.address(ids))
    assert other.compact(store).overhead_bytes == table.compact(store).overhead_bytes


def test_rows_that_are_all_equal_become_one_block() -> None:
    table, store = dedup(1000, 8, ratio=0.3)
    store.rows("f").zero_()
    assert table.settle(store)["kept_blocks"] == 1


def test_automatic_blocks_grow_where_the_budget_is_small() -> None:
    config = DedupConfig(ratio=0.25)
    spec, many = TableSpec("f", 5000, 16), TableSpec("f", 1_000_000, 16)
    assert config._blocks(spec) == Blocks(rows=1, count=5000, unique=1093, row_bytes=64)
    assert config.resized(0.02)._blocks(spec) == Blocks(rows=8, count=625, unique=10, row_bytes=64)
    assert config._blocks(many) == Blocks(rows=1, count=1_000_000, unique=187_500, row_bytes=64)
    assert Blocks(rows=1, count=10, unique=2**15, row_bytes=64).map_bytes == 20
    assert Blocks(rows=1, count=10, unique=2**15 + 1, row_bytes=64).map_bytes == 40


def test_the_smallest_form_balances_one_block_and_the_map() -> None:
    blocks = DedupConfig(ratio=1e-6)._blocks(TableSpec("f", 5000, 16))
    assert (blocks.rows, blocks.unique, blocks.bytes, blocks.map_bytes) == (16, 1, 1024, 626)


def test_a_narrow_type_buys_more_blocks() -> None:
    narrow = DedupConfig(ratio=0.25)._blocks(TableSpec("f", 5000, 16, served_dtype="int8"))
    assert (narrow.unique, narrow.row_bytes) == (int((20_000 * 4 - 10_000) / 18), 18)


def test_which_features_are_merged() -> None:
    assert isinstance(build(TableSpec("f", 100, 4), exact_below=100), FullTable)
    assert isinstance(build(TableSpec("f", 1000, 4), ratio=0.9, block_rows=1), DedupTable)
    assert isinstance(build(TableSpec("f", 3, 4), ratio=0.5, block_rows=8), FullTable)
    weights = build(TableSpec("f", 1000, 1, linear=True), ratio=0.1)
    assert isinstance(weights, HashedTable) and weights.slots[0].num_embeddings == 100


def test_bad_settings() -> None:
    table, store = dedup(1000, 8, ratio=0.3)
    with pytest.raises(ConfigError, match="table 'f': its blocks have not been merged; run the stages"):
        table.compact(store)
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'dedup' needs its size"):
        build(TableSpec("f", None, 8))
    assert [stage["do"] for stage in DedupConfig.recipe] == ["train", "settle", "train"]
