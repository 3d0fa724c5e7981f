"""Zero collision: who owns a row, when rows change hands, and what their new owners start from."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.hashing import MISSING_KEY
from recembed.rows import Adagrad, Init, PlainStore
from recembed.tables import FullTable, HashedTable, Table, TableSpec, ZeroCollisionConfig, ZeroCollisionTable
from recembed.tables.eviction import admitted, eviction_scores
from recembed.tables.fresh_rows import fresh_rows

FALLBACK = 4  # of five rows


def build(spec: TableSpec | None = None, **options: Any) -> Table:
    spec = spec or TableSpec("f", None, 4, init=Init(0.1, "normal"))
    return ZeroCollisionConfig.model_validate({"exact_below": 0} | options).build([spec], seed=7)[spec.name]


def small(**options: Any) -> tuple[ZeroCollisionTable, PlainStore]:
    table = build(**({"zch_size": 5, "eviction_interval": 2, "eviction_policy": "lfu"} | options))
    assert isinstance(table, ZeroCollisionTable)
    return table, PlainStore(table.slots, optimizer=Adagrad(learning_rate=0.1))


def vectors(table: Table, store: PlainStore, keys: Tensor) -> Tensor:
    return table.decode([store(table.address(keys).flatten(), 4)], keys)


def step(table: Table, store: PlainStore, keys: list[int]) -> None:
    given = torch.tensor(keys)
    with torch.no_grad():
        table.before_lookup(store, given)
    vectors(table, store, given).sin().sum().backward()


def rows(table: Table, keys: list[int]) -> list[int]:
    return table.address(torch.tensor(keys)).flatten().tolist()


def test_worked_by_hand() -> None:
    """Five rows: four to own, the last is the fallback, missing values lie behind it; two steps between admissions."""
    table, store = small()
    step(table, store, [10, 20, 20, 30, MISSING_KEY])
    assert rows(table, [10, 20, 30, MISSING_KEY]) == [4, 4, 4, 5]
    step(table, store, [10, 40, 10])
    assert rows(table, [10, 20, 30, 40]) == [0, 1, FALLBACK, FALLBACK]  # 10 came three times, 20 twice, others once


def test_admitted_ids_never_share_a_row() -> None:
    table, store = small(zch_size=33, eviction_interval=1, admission_threshold=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        step(table, store, torch.randint(-60, 60, (40,), generator=generator).tolist())
        keys = [key for key in table.known.get_buffer("sorted_keys").tolist() if key != MISSING_KEY]
        owned = rows(table, keys)
        assert len(set(owned)) == len(owned) == len(set(keys)) and max(owned) < 32
    assert len(keys) == 32


def test_the_mapping_is_stable_between_intervals() -> None:
    table, store = small(eviction_interval=4)
    seen = []
    for place in range(12):
        step(table, store, [place // 4, place // 4, 50 + place, 50 + place])
        seen.append(rows(table, list(range(70))))
    changes = [place for place in range(1, 12) if seen[place] != seen[place - 1]]
    assert changes == [3, 7, 11]  # the 4th, 8th and 12th step


def test_unseen_ids_read_the_fallback_row_and_move_no_other() -> None:
    table, store = small()
    for _ in range(2):
        step(table, store, [10, 20])
    before = store.rows("f").clone()
    assert rows(table, [10, 20, 777, 888]) == [0, 1, FALLBACK, FALLBACK]
    step(table, store, [777, 888])
    moved = (store.rows("f") != before).any(1)
    assert moved.tolist() == [False, False, False, False, True, False]


def test_a_new_owner_starts_from_fresh_weights_and_fresh_optimizer_rows() -> None:
    table, store = small(zch_size=2, eviction_interval=1)
    for _ in range(3):
        step(table, store, [10, 10])
    first, state = store.rows("f")[0].clone(), store.optimizer_rows("f")["sum"]
    assert rows(table, [10]) == [0] and (state[0] > 0).all()
    with torch.no_grad():
        table.before_lookup(store, torch.tensor([20] * 20))
    assert rows(table, [10, 20]) == [1, 0]
    assert (state[0] == 0).all()
    assert (store.rows("f")[0] != first).all() and store.rows("f")[0].abs().max() < 0.5
    assert (state[1] == 0).all()  # the fallback is nobody's to reset, and no step has read it


def test_fresh_rows_follow_their_law_and_their_seeds() -> None:
    seeds = torch.arange(5000)
    normal, uniform = fresh_rows(Init(0.1, "normal"), seeds, 8), fresh_rows(Init(0.1, "uniform"), seeds, 8)
    assert abs(normal.std() - 0.1) < 0.001 and abs(normal.mean()) < 0.002
    assert 0.0999 < uniform.max() <= 0.1 and abs(uniform.std() - 0.1 / 3**0.5) < 0.001
    assert torch.equal(fresh_rows(Init(0.1, "normal"), seeds[7:9], 8), normal[7:9])
    assert len(torch.unique(normal[:, 0])) > 4990


def test_evaluation_never_admits() -> None:
    table, store = small(eviction_interval=1, admission_threshold=1)
    step(table, store, [10])
    before = {key: value.clone() for key, value in table.state_dict().items()}
    table.eval()
    first, again = (vectors(table, store, torch.tensor([10, 20, 20])) for _ in range(2))
    assert torch.equal(first, again) and rows(table, [10, 20]) == [0, FALLBACK]
    assert all(torch.equal(value, before[key]) for key, value in table.state_dict().items())


def test_a_resumed_run_keeps_every_row_and_goes_on_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    stream = [(torch.rand(20, generator=generator) ** 3 * 40).long().tolist() for _ in range(20)]
    whole, store = small(zch_size=9, eviction_interval=3)
    for keys in stream[:10]:  # in the middle of an interval
        step(whole, store, keys)
    resumed, other = small(zch_size=9, eviction_interval=3)
    resumed.load_state_dict(whole.state_dict())
    other.load_state_dict(store.state_dict())
    assert rows(resumed, list(range(40))) == rows(whole, list(range(40)))
    for keys in stream[10:]:
        step(whole, store, keys)
        step(resumed, other, keys)
    assert torch.equal(store.rows("f"), other.rows("f"))
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
    assert whole.known.get_buffer("generations").max() > 1


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("lfu", [20, 30]), ("lru", [10, 30]), ("distance_lfu", [20, 30])],
)
def test_policies_choose_who_stays(policy: str, kept: list[int]) -> None:
    """Two rows. 20 came most, 10 last, 30 often and lately: it is new, and one of the incumbents has to leave."""
    table, store = small(zch_size=3, eviction_interval=4, eviction_policy=policy)
    step(table, store, [20] * 9 + [10] * 2)
    for _ in range(3):
        step(table, store, [20])
    for keys in ([30] * 4, [30] * 4, [10], [30]):
        step(table, store, keys)
    assert [key for key in (10, 20, 30) if rows(table, [key]) != [2]] == kept


def test_ties_favour_the_incumbent() -> None:
    table, store = small(zch_size=2, eviction_interval=1)
    step(table, store, [10, 10])
    step(table, store, [20, 20])
    assert rows(table, [10, 20]) == [0, 1]
    step(table, store, [20, 20, 20])
    assert rows(table, [10, 20]) == [1, 0]


def test_scores_and_filters_worked_by_hand() -> None:
    counts, last, now = torch.tensor([8, 3]), torch.tensor([1, 4]), torch.tensor(4)
    assert eviction_scores("lfu", counts, last, now, 2.0).tolist() == [8, 3]
    assert eviction_scores("lru", counts, last, now, 2.0).tolist() == [1 / 16, 1]
    assert eviction_scores("distance_lfu", counts, last, now, 2.0).tolist() == [0.5, 3]
    counts, half = torch.tensor([1, 2, 3, 54]), torch.full((4,), 0.5)
    assert admitted("count", counts, threshold=2, draws=half).tolist() == [False, True, True, True]
    assert admitted("average", counts, threshold=0, draws=half).tolist() == [False, False, False, True]
    assert admitted("dynamic", counts, threshold=0.2, draws=half).tolist() == [False, False, False, True]
    assert admitted("probabilistic", counts, threshold=0.25, draws=half).tolist() == [False, False, True, True]


def test_the_history_keeps_the_latest_unknown_ids() -> None:
    table, store = small(input_history_buffer_size=4, admission_threshold=1)
    step(table, store, [1, 2, 3])
    step(table, store, [4, 5])
    assert rows(table, [1, 2, 3, 4, 5]) == [FALLBACK, 0, 1, 2, 3]
    step(table, store, [6, 7, 8, 9, 10, 11])
    assert sorted(table.known.get_buffer("history").tolist()) == [8, 9, 10, 11]


def test_compact_serves_the_same_vectors_from_sorted_keys() -> None:
    table, store = small(zch_size=9)
    for _ in range(4):
        step(table, store, [70, 70, -5, -5, 33, 33])
    served = table.eval().compact(store)
    keys = torch.tensor([[70, -5, 33], [1, MISSING_KEY, 2**63 - 1]])
    torch.testing.assert_close(served.decode([], keys).flatten(0, 1), vectors(table, store, keys.flatten()))
    assert served.overhead_bytes == sum(table.served_rows.values()) + table.served_overhead_bytes == 10 * 16 + 8 * 8


@pytest.mark.parametrize("ratio", [0.01, 0.25])
def test_the_ratio_counts_rows_and_keys(ratio: float) -> None:
    table = build(TableSpec("f", 5000, 16), ratio=ratio)
    served = sum(table.served_rows.values()) + table.served_overhead_bytes
    assert 0.97 * ratio < served / (5000 * 16 * 4) <= ratio


def test_which_features_are_managed() -> None:
    assert isinstance(build(TableSpec("f", 100, 4), zch_size=500, exact_below=100), FullTable)
    assert isinstance(build(TableSpec("f", 101, 4), zch_size=500, exact_below=100), ZeroCollisionTable)
    assert isinstance(build(TableSpec("f", 101, 4), ratio=1.0), FullTable)
    weights = build(TableSpec("f", 5000, 1, linear=True, vector_dim=16), ratio=0.25)
    assert isinstance(weights, HashedTable) and weights.reads == "keys"
    assert ZeroCollisionConfig(zch_size=9).resized(0.5) == ZeroCollisionConfig(zch_size=9)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'zero_collision' needs its size"):
        build(TableSpec("f", None, 8), ratio=0.5)
    with pytest.raises(ValueError, match="zch_size and ratio are both given; keep one of them"):
        ZeroCollisionConfig(zch_size=10, ratio=0.5)
    with pytest.raises(ValueError, match=r"admission_threshold = 2\.0: expected a probability, at most 1"):
        ZeroCollisionConfig(zch_size=10, admission="probabilistic", admission_threshold=2.0)


@pytest.mark.parametrize("policy", ["lfu", "lru", "distance_lfu"])
def test_the_ids_kept_are_those_of_torchrec(policy: str) -> None:
    """Its own module beside ours on one stream: of 32 rows all but one or two agree, where scores tie; other policies
    share 25 at most."""
    torchrec = pytest.importorskip("torchrec")
    modules = pytest.importorskip("torchrec.modules.mc_modules")
    name = {"lfu": "LFU", "lru": "LRU", "distance_lfu": "DistanceLFU"}[policy] + "_EvictionPolicy"
    rule = getattr(modules, name)(**({} if policy == "lfu" else {"decay_exponent": 1.0}))
    theirs = modules.MCHManagedCollisionModule(33, torch.device("cpu"), rule, eviction_interval=3).train()
    ours, store = small(zch_size=33, eviction_interval=3, eviction_policy=policy, admission_threshold=1)
    generator = torch.Generator().manual_seed(0)
    for now in range(1, 61):
        keys = torch.rand(50, generator=generator).pow(-1.2).long().clamp(max=400)
        ours.before_lookup(store, keys)
        theirs.profile({"f": torchrec.JaggedTensor(keys, lengths=torch.ones(50, dtype=torch.int64))})
        if now % 3 == 0 and now > 3:  # rows are free before
            kept = set(theirs.get_buffer("_mch_sorted_raw_ids")[:-1].tolist())
            assert len(kept & set(ours.known.get_buffer("sorted_keys").tolist())) >= 30, now
