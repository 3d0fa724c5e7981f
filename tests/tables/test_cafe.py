"""CAFE: the sketch finds the ids that matter, and promotion changes no vector."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.hashing import MISSING_KEY
from recembed.rows import Adagrad, PlainStore
from recembed.tables import CafeConfig, CafeTable, FullTable, HashedConfig, HashedTable, Table, TableSpec
from recembed.tables.sketch import SLOTS, HotSketch


def build(spec: TableSpec | None = None, **options: Any) -> Table:
    spec = spec or TableSpec("f", 1000, 4)
    return CafeConfig.model_validate({"exact_below": 0} | options).build([spec], seed=7)[spec.name]


def cafe(**options: Any) -> tuple[CafeTable, PlainStore]:
    table = build(**options)
    assert isinstance(table, CafeTable)
    return table, PlainStore(table.slots, optimizer=Adagrad(learning_rate=0.1))


def vectors(table: Table, store: PlainStore, keys: Tensor) -> Tensor:
    return table.decode([store(table.address(keys).flatten(), 4)], keys)


def step(table: Table, store: PlainStore, keys: Tensor, weights: Tensor | None = None) -> Tensor:
    """Train once on ``sum(weights * vectors)``: every occurrence's gradient is its weight, in all four numbers."""
    with torch.no_grad():
        table.before_lookup(store, keys)
    seen = vectors(table, store, keys)
    (seen.sum(1) * (torch.ones(len(keys)) if weights is None else weights)).sum().backward()
    return seen.detach()


def scores(table: CafeTable) -> dict[int, float]:
    keys, values = table.sketch.get_buffer("keys").flatten(), table.sketch.get_buffer("scores").flatten()
    return {int(key): float(value) for key, value in zip(keys, values, strict=True) if key != MISSING_KEY}


def zipf(steps: int, size: int = 5000, batch: int = 500) -> list[Tensor]:
    generator = np.random.default_rng(0)
    law = 1 / np.arange(1, size + 1) ** 1.1
    return [torch.tensor(generator.choice(size, batch, p=law / law.sum())) * 7919 for _ in range(steps)]


def test_worked_by_hand() -> None:
    """Gradients 1, 1 (key 5, so 2 summed) and 2 (key 9) out of 3 ids: scores 1.5 each; a missing value has none."""
    table, store = cafe(num_embeddings=11, threshold=3)
    step(table, store, torch.tensor([5, 5, 9, MISSING_KEY]), torch.tensor([1.0, 1.0, 2.0, 9.0]))
    assert scores(table) == pytest.approx({5: 1.5, 9: 1.5})
    step(table, store, torch.tensor([5, 9]), torch.tensor([3.0, 1.0]))
    assert scores(table) == pytest.approx({5: 3.0, 9: 2.0})
    assert table.address(torch.tensor([5, MISSING_KEY])).flatten().tolist() == [
        int(table.shared_rows(torch.tensor(5))),
        0,
    ]
    step(table, store, torch.tensor([5, 9]))
    assert table.address(torch.tensor([5])).item() == 1 + table.shared
    assert table.sketch.hot_rows(torch.tensor([5, 9, 77])).tolist() == [0, -1, -1]


def test_promotion_copies_weights_and_optimizer_rows_and_changes_no_output() -> None:
    table, store = cafe(num_embeddings=21, threshold=2)
    keys = torch.tensor([3, 3, 4, 8])
    step(table, store, keys)
    shared = int(table.shared_rows(torch.tensor(3)))
    before = vectors(table, store, keys).detach()
    state = store.optimizer_rows("f")["sum"][shared].clone()
    with torch.no_grad():
        table.before_lookup(store, keys)
    hot = int(table.address(torch.tensor([3])))
    assert hot > table.shared
    assert torch.equal(store.optimizer_rows("f")["sum"][hot], state) and (state > 0).all()
    assert torch.equal(vectors(table, store, keys), before)
    assert int(table.address(torch.tensor([4]))) <= table.shared


def test_hot_rows_never_exceed_the_capacity_and_belong_to_one_key_each() -> None:
    table, store = cafe(num_embeddings=41, threshold=1)
    for keys in zipf(60):
        step(table, store, keys)
        hot, rows = table.sketch.hot()
        assert len(hot) == int(table.sketch.get_buffer("used")) <= table.sketch.capacity == 20
        assert len(set(hot.tolist())) == len(set(rows.tolist())) == len(hot)
        assert all(0 <= row < 20 for row in rows.tolist())
    assert len(hot) == 20


def test_the_sketch_finds_the_ids_of_most_gradient_mass() -> None:
    """Zipf stream whose gradients also differ by key: the top 50 by mass are hot, at 0.9 or more."""
    table, store = cafe(num_embeddings=401, threshold=10)
    mass: dict[int, float] = {}
    for keys in zipf(200):
        weights = (1 + keys // 7919 % 3).float()
        step(table, store, keys, weights)
        for key, weight in zip(keys.tolist(), weights.tolist(), strict=True):
            mass[key] = mass.get(key, 0.0) + weight
    top = torch.tensor(sorted(mass, key=lambda key: -mass[key])[:50])
    assert (table.sketch.hot_rows(top) >= 0).float().mean() > 0.9


def test_decay_demotes_stale_keys_and_frees_their_rows() -> None:
    table, store = cafe(num_embeddings=9, threshold=2, decay=0.5)
    old, new = torch.arange(1, 5), torch.arange(101, 105)
    for _ in range(6):
        step(table, store, old)
    assert (table.sketch.hot_rows(old) >= 0).sum() == 4 == table.sketch.capacity
    for _ in range(40):
        step(table, store, new)
    assert (table.sketch.hot_rows(old) >= 0).sum() == 0
    assert (table.sketch.hot_rows(new) >= 0).sum() == 4


def test_cold_ids_equal_the_plain_hashed_table() -> None:
    table, _ = cafe(num_embeddings=101)
    hashed = HashedConfig(num_embeddings=1 + table.shared).build([TableSpec("f", None, 4)], seed=7)["f"]
    keys = torch.cat([torch.arange(-500, 500), torch.tensor([MISSING_KEY])])
    assert torch.equal(table.address(keys), hashed.address(keys))


def test_a_full_bucket_gives_its_weakest_cold_slot_to_the_strongest_newcomer() -> None:
    """One bucket: 4 and 3 are hot; of 1 and 2 the weaker goes, and the newcomer inherits its score."""
    sketch = HotSketch(1, 2, threshold=3.0, decay=0.9, seeded=0)
    sketch.add(torch.tensor([1, 2, 3, 4]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert [part.tolist() for part in sketch.promote(torch.tensor([1, 2, 3, 4]))] == [[4, 3], [0, 1]]
    sketch.add(torch.tensor([7, 8]), torch.tensor([5.0, 6.0]))
    assert sorted(sketch.get_buffer("keys").flatten().tolist()) == [2, 3, 4, 8]
    assert sorted(sketch.get_buffer("scores").flatten().tolist()) == [2.0, 3.0, 4.0, 7.0]
    assert sketch.promote(torch.tensor([8]))[0].tolist() == []  # no row is free
    assert sketch.get_buffer("keys").shape == (1, SLOTS)


def test_frequency_counts_occurrences() -> None:
    table, store = cafe(num_embeddings=11, score="frequency")
    step(table, store, torch.tensor([5, 5, 9]), torch.tensor([0.0, 0.0, 8.0]))
    assert scores(table) == {5: 2.0, 9: 1.0}


def test_a_gradient_that_is_not_finite_counts_as_none() -> None:
    table, store = cafe(num_embeddings=11)
    step(table, store, torch.tensor([5, 9]), torch.tensor([float("nan"), 1.0]))
    assert scores(table) == {9: 2.0}


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    stream = zipf(30)
    whole, store = cafe(num_embeddings=41, threshold=2)
    for keys in stream[:15]:
        step(whole, store, keys)
    resumed, other = cafe(num_embeddings=41, threshold=2)
    resumed.load_state_dict(whole.state_dict())
    other.load_state_dict(store.state_dict())
    for keys in stream[15:]:
        assert torch.equal(step(whole, store, keys), step(resumed, other, keys))
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
    assert len(whole.sketch.hot()[0]) == 20


def test_evaluation_neither_counts_nor_promotes() -> None:
    table, store = cafe(num_embeddings=11, threshold=1)
    step(table, store, torch.tensor([5, 9]))
    before = {key: value.clone() for key, value in table.state_dict().items()}
    table.eval()
    vectors(table, store, torch.tensor([5, 6])).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in table.state_dict().items())


@pytest.mark.parametrize("steps", [0, 1, 40])
def test_compact_serves_hot_and_cold_keys_without_the_sketch(steps: int) -> None:
    table, store = cafe(num_embeddings=41, threshold=2)
    for keys in zipf(steps):
        step(table, store, keys)
    served = table.eval().compact(store)
    keys = torch.cat([table.sketch.hot()[0], torch.arange(-50, 50) * 7919, torch.tensor([MISSING_KEY, 2**63 - 1])])
    torch.testing.assert_close(served.decode([], keys), vectors(table, store, keys), rtol=0, atol=0)
    assert served.overhead_bytes == sum(table.served_rows.values()) + table.served_overhead_bytes


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.3])
def test_the_ratio_counts_rows_and_sketch(ratio: float) -> None:
    spec = TableSpec("f", 20_000, 16)
    table = build(spec, ratio=ratio)
    taken = sum(slot.bytes for slot in table.slots) + table.overhead_bytes
    assert 0.98 * ratio < taken / (20_000 * 16 * 4) <= ratio


def test_small_budgets_are_hashed_and_features_that_would_not_shrink_stay_exact() -> None:
    assert isinstance(build(ratio=0.005), HashedTable)
    assert isinstance(build(num_embeddings=1000), FullTable)
    assert isinstance(build(TableSpec("f", 50, 4), exact_below=50), FullTable)
    weights = build(TableSpec("f", 1000, 1, linear=True, vector_dim=4), ratio=0.1)
    assert isinstance(weights, HashedTable) and weights.slots[0].num_embeddings <= 100
    assert isinstance(build(TableSpec("f", 1000, 1, linear=True, vector_dim=4), num_embeddings=1000), FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'cafe' needs its size"):
        build(TableSpec("f", None, 8))
    assert isinstance(build(TableSpec("f", None, 8), num_embeddings=50), CafeTable)
    with pytest.raises(ValueError, match="num_embeddings and ratio are both given"):
        CafeConfig(num_embeddings=10, ratio=0.5)
