"""Plans: what is planned, written, read back, and refused."""

import importlib.util

import pytest

from recembed.errors import ConfigError
from recembed.rows import Adagrad, Adam, RowTable, RowWiseAdagrad
from recembed.rows.lanes import local_order
from recembed.rows.planner import plan_by_size
from recembed.rows.sharding_plan import ShardingPlan, TablePlan

needs_fbgemm = pytest.mark.skipif(importlib.util.find_spec("fbgemm_gpu") is None, reason="fbgemm is not installed")
TABLES = {
    table.name: table for table in (RowTable("item", 100_000, 16), RowTable("user", 20_000, 16), RowTable("day", 7, 16))
}


def edited(**changes: TablePlan) -> ShardingPlan:
    planned = plan_by_size(TABLES, 2)
    return planned.model_copy(update={"tables": planned.tables | changes})


def test_the_planner_cuts_copies_and_places_by_size() -> None:
    planned = plan_by_size(TABLES, 2)
    assert {name: plan.sharding for name, plan in planned.tables.items()} == {
        "item": "row_wise",
        "user": "table_wise",
        "day": "data_parallel",
    }
    # item 6.4 MB in halves, user 1.28 MB on rank 0, day 448 bytes on both
    assert planned.bytes(TABLES, None) == [3_200_000 + 1_280_000 + 448, 3_200_000 + 448]
    assert planned.bytes(TABLES, Adagrad()) == [2 * size for size in planned.bytes(TABLES, None)]


def test_a_plan_is_read_back_as_it_was_written_and_says_why() -> None:
    planned = plan_by_size(TABLES, 2)
    assert ShardingPlan.from_yaml(planned.to_yaml()) == planned
    text = planned.describe(TABLES, None)
    assert "user   20,000 x 16   table_wise" in text
    assert "bytes by rank: 0: 4.3 MiB, 1: 3.1 MiB" in text and "fits one process" in text


def test_every_row_has_one_holder() -> None:
    for table, ranks in ((RowTable("t", 5, 4), (1, 0)), (RowTable("t", 3, 4), ())):
        plan = ShardingPlan(world_size=4, tables={"t": TablePlan(sharding="row_wise", ranks=ranks)})
        assert sorted(row for shard in plan.shards(table) for row in shard.rows) == list(range(table.num_embeddings))
    columns = ShardingPlan(world_size=2, tables={"t": TablePlan(sharding="column_wise")}).shards(RowTable("t", 5, 6))
    assert [(shard.rank, shard.columns) for shard in columns] == [(0, range(0, 3)), (1, range(3, 6))]


def test_copies_lie_alike_in_every_process() -> None:
    order = local_order(TABLES, plan_by_size(TABLES, 2))
    assert next(part.name for part, rank in order if rank == 0) == "day[0:7, 0:16]"
    assert next(part.name for part, rank in order if rank == 1) == "day[0:7, 0:16]"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (plan_by_size(TABLES, 3), "plan: world_size = 3, but 2 processes run; start 3"),
        (edited(itm=TablePlan(sharding="row_wise")), "table 'itm' is not in the model; did you mean 'item'"),
        (plan_by_size({"item": TABLES["item"]}, 2), "table 'user' has no entry; every table"),
        (edited(item=TablePlan(sharding="table_wise")), "table 'item': table_wise needs one rank, ranks = "),
        (edited(item=TablePlan(sharding="row_wise", ranks=(0, 2))), r"rank 2 is outside 0\.\.1"),
        (edited(item=TablePlan(sharding="row_wise", ranks=(1, 1))), "name a process twice"),
        (edited(item=TablePlan(sharding="row_wise", rows=7)), "rows = 7, the model's table has 100000; plan anew"),
        (edited(day=TablePlan(sharding="data_parallel", ranks=(0,))), "keeps a copy on every process; leave ranks out"),
        (
            edited(day=TablePlan(sharding="data_parallel", kernel="torch")),
            "kernel = 'torch', other tables have 'fused'",
        ),
        (edited(item=TablePlan(sharding="column_wise")), "one accumulator per group of columns"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan: ShardingPlan, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan.check(TABLES, 2, RowWiseAdagrad())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("world_size: 2\ntables: {a: {sharding: row_wise}, a: {sharding: row_wise}}", "'a' stands twice"),
        ("world_size: 2\ntables: {a: {shardin: row_wise}}", "no such field; did you mean 'sharding'"),
        ("world_size: 2\ntables: {a: {sharding: rowwise}}", r"tables.a.sharding = 'rowwise'"),
        ("- 1", "expected world_size and tables, got list"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShardingPlan.from_yaml(text)


@needs_fbgemm
def test_torchrec_plans_within_memory() -> None:
    from recembed.rows.torchrec_planner import plan_by_torchrec

    tables = {"big": RowTable("big", 4_000_000, 16), "small": RowTable("small", 50, 1)}
    plan = plan_by_torchrec(tables, 2, optimizer=RowWiseAdagrad(), batch_size=64, memory=300 << 20)
    plan.check(tables, 2, RowWiseAdagrad())
    assert plan.tables["big"].sharding == "row_wise"  # 256 MB and its states do not fit beside what is held back
    with pytest.raises(ConfigError, match=r"take 259.4 MiB with optimiser rows; 2 processes of 50.0 MiB cannot hold"):
        plan_by_torchrec(tables, 2, optimizer=RowWiseAdagrad(), batch_size=64, memory=50 << 20)


@needs_fbgemm
def test_torchrec_caches_on_a_gpu_what_is_beyond_its_memory() -> None:
    from recembed.rows.torchrec_planner import plan_by_torchrec

    tables = {"big": RowTable("big", 4_000_000, 16), "small": RowTable("small", 50, 1)}  # 256 MB
    for memory, kernel in ((2 << 30, "fused"), (100 << 20, "fused_uvm_caching")):
        plan = plan_by_torchrec(
            tables, 2, optimizer=RowWiseAdagrad(), batch_size=64, memory=memory, host_memory=4 << 30, device="cuda"
        )
        plan.check(tables, 2, RowWiseAdagrad())
        assert {table.kernel for table in plan.tables.values()} == {kernel}


def test_a_rule_that_moves_every_row_is_for_one_process() -> None:
    with pytest.raises(ConfigError, match=r"row_optimizer\.lazy = False trains in one process; set it to true"):
        plan_by_size(TABLES, 2).check(TABLES, 2, Adam(lazy=False))
