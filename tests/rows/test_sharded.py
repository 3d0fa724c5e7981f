"""Rows over two processes: the numbers of one process, for every method, rule and way of spreading."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.batch import Batch, Jagged
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.embedding.asked import Ahead
from recembed.rows import SGD, Adagrad, Adam, PlainStore, RowOptimizer, RowStore, RowTable, RowWiseAdagrad
from recembed.rows.fresh import fresh_rows
from recembed.rows.piece import Piece, is_part
from recembed.rows.process_group import ProcessGroup
from recembed.rows.row_table import Part
from recembed.rows.sharded import ShardedStore
from recembed.rows.sharded_stores import ShardedStores
from recembed.rows.sharding_plan import ShardingPlan, TablePlan
from recembed.training.gradients import sum_gradients
from tests.embedding.fixtures import batch, fitted
from tests.embedding.test_contract import CASES
from tests.rows.two_processes import run

pytestmark = pytest.mark.slow
TABLES = [
    RowTable("a", 50, 16),
    RowTable("b", 31, 16),
    RowTable("w", 50, 1),
    RowTable("c", 20, 8),
    RowTable("d", 9, 16),
]
ROWS, FIRST = 40, 25  # of the global batch, and of rank 0
ROUNDING = ("int16",)  # float noise may turn a number to the next point of its grid, 3e-5 away
RULES: list[RowOptimizer] = [
    SGD(learning_rate=0.1),
    Adagrad(learning_rate=0.1, eps=1e-4),  # at 1e-8 a gradient that is zero but for rounding moves a row
    RowWiseAdagrad(learning_rate=0.1),
    Adam(learning_rate=0.1),
]


def plan(rule: RowOptimizer) -> ShardingPlan:
    columns = TablePlan(sharding="row_wise", ranks=(1, 0))
    if not isinstance(rule, RowWiseAdagrad):
        columns = TablePlan(sharding="column_wise", ranks=(1, 0))
    kinds = {"a": TablePlan(sharding="row_wise"), "b": columns, "w": TablePlan(sharding="data_parallel")}
    kinds |= {"c": TablePlan(sharding="table_wise", ranks=(1,)), "d": TablePlan(sharding="data_parallel")}
    return ShardingPlan(world_size=2, tables=kinds)


def train(store: RowStore, rows: slice) -> dict[str, Tensor]:
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        wide = torch.randint(90, (ROWS,), generator=generator)[rows]
        weights = torch.randint(50, (ROWS, 3), generator=generator)[rows]
        other = torch.randint(20, (ROWS,), generator=generator)[rows]
        bags = torch.arange(len(wide) + 1) * 3
        found = store.gather({16: (wide, None), 1: (weights.flatten(), bags), 8: (other, None)})
        loss = (found[16].sin().sum(1) + found[1].squeeze(1).exp() + found[8].cos().sum(1)).mean()
        store.processes.share = len(wide) / ROWS
        loss.backward()
    return store.state_dict()


def every_rule(processes: ProcessGroup) -> list[tuple[str, float]]:
    worst = []
    for rule in RULES:
        sharded = ShardedStore(TABLES, optimizer=rule, plan=plan(rule), processes=processes, seed=3)
        alone = PlainStore(TABLES, optimizer=rule, seed=3)
        fresh = {key: values.clone() for key, values in alone.state_dict().items()}
        assert all(torch.equal(values, fresh[name]) for name, values in sharded.state_dict().items())
        assert sum(part.numel() for name in sharded.tables for _, part in sharded.parts(name)) < alone.bytes // 4
        got = train(sharded, slice(0, FIRST) if processes.rank == 0 else slice(FIRST, ROWS))
        wanted = train(alone, slice(0, ROWS))
        worst.append((rule.kind, max(float((got[key] - wanted[key]).abs().max()) for key in wanted)))  # type: ignore[attr-defined]
        assert any((fresh[key] != wanted[key]).any() for key in wanted)
    return worst


def test_two_processes_are_one_for_every_rule_and_way_of_spreading() -> None:
    for said in run(every_rule):
        assert isinstance(said, list), said
        assert [kind for kind, _ in said] == ["sgd", "adagrad", "row_wise_adagrad", "adam"]
        assert all(distance < 1e-6 for _, distance in said), said


def reads_and_writes(processes: ProcessGroup) -> list[Any]:
    store = ShardedStore(TABLES, optimizer=Adagrad(), plan=plan(Adagrad()), processes=processes, seed=1)
    whole = {name: store.rows(name) for name in store.tables}
    places = torch.tensor([30, 0, 17])
    same = all(torch.equal(store.read_rows(name, places % 9), whole[name][places % 9]) for name in store.tables)
    new = torch.arange(48.0).view(3, 16)
    for name in ("a", "b"):
        store.write_rows(name, new, places)
        store.write_rows(name, new + 1, places, "sum")
    store.write_rows("d", 2.0)
    right = all(torch.equal(store.rows(name)[places], new) for name in ("a", "b"))
    states = all(torch.equal(store.optimizer_rows(name)["sum"][places], new + 1) for name in ("a", "b"))
    untouched = torch.equal(store.rows("a")[1:17], whole["a"][1:17])
    loaded = ShardedStore(TABLES, optimizer=Adagrad(), plan=plan(Adagrad()), processes=processes, seed=2)
    loaded.load_state_dict(store.state_dict())
    trip = all(torch.equal(loaded.state_dict()[key], values) for key, values in store.state_dict().items())
    return [same, right, states, untouched, bool((store.rows("d") == 2).all()), trip]


def test_rows_are_read_and_written_by_address() -> None:
    for said in run(reads_and_writes):
        assert said == [True] * 6


def part(whole: Batch, rank: int) -> Batch:
    rows = slice(0, FIRST) if rank == 0 else slice(FIRST, ROWS)
    jagged = {}
    for name, bag in whole.jagged.items():
        offsets = bag.offsets[rows.start : rows.stop + 1]
        jagged[name] = Jagged(bag.values[offsets[0] : offsets[-1]], offsets - offsets[0])
    return Batch(whole.ids[rows], jagged, whole.numeric[rows], whole.labels[rows])


def embedding_of(case: str, rule: RowOptimizer, stores: ShardedStores | None) -> FeatureEmbedding:
    config = EmbeddingConfig.model_validate({
        "embedding_dim": 8, "table": CASES[case], "row_store": "torch", "row_optimizer": rule, "l2": 0.1,
        "numeric": "linear", "features": {"history": {"pooling": "none"}},
    })  # fmt: skip
    return FeatureEmbedding(fitted(), config, linear=True, make_store=stores).train()


def fit(embedding: FeatureEmbedding, rank: int | None, *, ahead: bool = False) -> dict[str, Tensor]:
    """Train for four steps; ``ahead`` begins each lookup during the step before it."""
    wholes = [batch(ROWS, embedding.key_features, seed=step) for step in range(4)]
    batches = wholes if rank is None else [part(whole, rank) for whole in wholes]
    processes = embedding.store.processes
    if ahead:
        embedding.start_sparse_data_dist(batches[0])
    for step, mine in enumerate(batches):
        if ahead and step < 3:
            embedding.start_sparse_data_dist(batches[step + 1])
        processes.share = len(mine) / ROWS
        embedded = embedding(mine)
        per_row = embedded.concat().sin().sum(1) + embedded.linear.sin()
        per_row = per_row + embedded.sequences["history"].values.sin().sum((1, 2))
        loss = (per_row * (1 + mine.numeric[:, 0] / 80)).mean()  # rows differ, so that no two scores of keys are equal
        if ahead:
            embedding.wait_sparse_data_dist()
        added = embedding.take_auxiliary_loss()
        (loss if added is None else loss + added).backward()
        parameters = list(embedding.parameters())
        sum_gradients(processes, parameters)
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
                parameter.grad = None
    return embedding.state_dict()


def every_method(processes: ProcessGroup, rule: RowOptimizer) -> dict[str, str]:
    wrong = {}
    for case in CASES:
        stores = ShardedStores(processes, copy_below=100)
        sharded = embedding_of(case, rule, stores)
        got = fit(sharded, processes.rank)
        wanted = fit(embedding_of(case, rule, None), None)
        kinds = {one.sharding for one in (stores.plan or plan(rule)).tables.values()}
        if "row_wise" not in kinds and "table_wise" not in kinds:
            wrong[case] = f"nothing is spread: {kinds}"
        for name, parameter in sharded.named_parameters(remove_duplicate=False):
            if is_part(parameter):
                wanted[name] = Piece.of(parameter).within(wanted[name])
        for key, values in wanted.items():
            far = (got[key].double() - values.double()).abs() > 1e-5 * values.double().abs().clamp(min=1)
            if far.double().mean() > (0.01 if case in ROUNDING else 0):
                wrong[case] = f"{key}: {int(far.sum())} of {far.numel()}"
                break
    return wrong


def lookups_begun_early(processes: ProcessGroup) -> dict[str, str]:
    """Train every method with lookups that begin a step early and with lookups that do not."""
    wrong, rule, found = {}, RULES[1], list[bool]()
    take = Ahead.take

    def watched(self: Ahead, batch: Batch, *, training: bool) -> Any:
        asked = take(self, batch, training=training)
        found.append(asked is not None)
        return asked

    Ahead.take = watched  # type: ignore[method-assign]
    for case in CASES:
        plain, early = (embedding_of(case, rule, ShardedStores(processes, copy_below=100)) for _ in range(2))
        wanted = fit(plain, processes.rank)
        found.clear()
        got = fit(early, processes.rank, ahead=True)
        if found != [not plain._movers] * 4:
            wrong[case] = f"begun early: {found}"
        if differ := [key for key, values in wanted.items() if not torch.equal(got[key], values)]:
            wrong[case] = f"{differ}"
    return wrong


def test_lookups_that_begin_a_step_early_give_the_same_bits() -> None:
    for said in run(lookups_begun_early):
        assert said == {}


def odd_ones(processes: ProcessGroup) -> list[bool]:
    """Change the mode of one process alone while a lookup is under way; embed where no method reads rows."""
    mine = part(batch(ROWS, frozenset(), seed=0), processes.rank)
    embedding, other = (embedding_of("full", RULES[0], ShardedStores(processes, copy_below=100)) for _ in range(2))
    embedding.start_sparse_data_dist(mine)
    embedding.wait_sparse_data_dist()
    copied = copy.deepcopy(embedding)
    if processes.rank == 0:
        embedding.eval().train()
    same = torch.equal(embedding(mine).concat(), other(mine).concat())
    same_copied = torch.equal(copied(mine).concat(), other(mine).concat())
    config = {"embedding_dim": 8, "table": {"kind": "deep_hash", "exact_below": 0}}
    hashed = FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(config), make_store=ShardedStores(processes))
    mine = part(batch(ROWS, hashed.key_features, seed=0), processes.rank)
    hashed.start_sparse_data_dist(mine)
    hashed.wait_sparse_data_dist()
    return [same, same_copied, bool(hashed(mine).concat().isfinite().all())]


def test_modes_of_one_process_copies_and_methods_without_rows_disturb_nothing() -> None:
    for said in run(odd_ones):
        assert said == [True] * 3, said


@pytest.mark.parametrize("rule", RULES[:3], ids=lambda rule: rule.kind)
def test_every_method_trains_on_two_processes_as_on_one(rule: RowOptimizer) -> None:
    for said in run(every_method, rule):
        assert said == {}


def fall_silent(processes: ProcessGroup) -> str:
    import time

    if processes.rank == 1:
        time.sleep(25)
        return "asleep"
    try:
        processes.tell("here")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nobody was missed"


def test_a_silent_process_is_named() -> None:
    waiting, _ = run(fall_silent, timeout=3.0)
    assert waiting.startswith("TrainingError: rank 0 waited in vain for a word of each process: rank 1 (")
    assert "is gone, or stuck for more than 3 seconds; look at its log" in waiting


def differ(processes: ProcessGroup) -> str:
    try:
        processes.agree("the number of batches", 10 + processes.rank)
    except Exception as error:
        return str(error)
    return "they agree"


def test_processes_that_differ_are_told_in_what() -> None:
    for said in run(differ):
        assert said.startswith("the processes differ in the number of batches (rank 0: 10, rank 1: 11)")


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_a_part_has_the_fresh_rows_of_the_whole_over_blocks(law: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from recembed.rows import Init

    monkeypatch.setattr("recembed.rows.fresh._BLOCK", 16)
    init = Init(0.5, law)
    whole = torch.cat([rows for _, rows in fresh_rows(RowTable("t", 50, 4, init), seed=7)])
    piece = RowTable("x", 30, 2, init, Part("t", 50, 4, first_row=11, first_column=1))
    own = torch.zeros(30, 2)
    for start, rows in fresh_rows(piece, seed=7):
        own[start : start + len(rows)] = rows
    assert torch.equal(own, whole[11:41, 1:3]) and len(torch.unique(whole[:, 0])) == 50
