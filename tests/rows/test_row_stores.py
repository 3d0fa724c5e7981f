"""Both row stores: hand-worked updates, and the same numbers from both."""

import importlib.util

import pytest
import torch

from recembed.errors import ConfigError
from recembed.rows import (
    SGD,
    Adagrad,
    Adam,
    Init,
    PlainStore,
    RowOptimizer,
    RowStore,
    RowTable,
    RowWiseAdagrad,
    decay_lookups,
    decay_rows,
    make_row_store,
)

FBGEMM = importlib.util.find_spec("fbgemm_gpu") is not None
STORES = ["torch", "torchrec"] if FBGEMM else ["torch"]
needs_fbgemm = pytest.mark.skipif(not FBGEMM, reason="fbgemm is not installed")
TABLES = [RowTable("a", 50, 16), RowTable("b", 30, 16), RowTable("first_order", 50, 1), RowTable("odd", 20, 6)]


def store_of(name: str, optimizer: RowOptimizer | None, tables: list[RowTable] = TABLES, seed: int = 3) -> RowStore:
    return make_row_store(name, tables, optimizer=optimizer, seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STORES)
def test_row_wise_adagrad_by_hand(name: str) -> None:
    store = store_of(name, RowWiseAdagrad(learning_rate=0.1, eps=1e-8), [RowTable("t", 3, 4)])
    with torch.no_grad():
        store.rows("t").copy_(torch.arange(12.0).view(3, 4))
    rows = store(torch.tensor([1, 1, 2]), 4)
    (rows * torch.tensor([[1.0, 2.0, 2.0, 0.0]])).sum().backward()
    # row 1 is met twice: g = (2, 4, 4, 0), mean of squares 9, so w -= 0.1 * g / 3; row 2: g = (1, 2, 2, 0), 2.25
    expected = torch.tensor([[0.0, 1, 2, 3], [4 - 0.2 / 3, 5 - 0.4 / 3, 6 - 0.4 / 3, 7], [8, 9, 10, 11]])
    expected[2] -= 0.1 * torch.tensor([1.0, 2, 2, 0]) / 1.5
    torch.testing.assert_close(store.rows("t"), expected)
    torch.testing.assert_close(store.optimizer_rows("t")["sum"], torch.tensor([0.0, 9.0, 2.25]))


@pytest.mark.parametrize("name", STORES)
def test_row_wise_adagrad_divides_by_the_real_width(name: str) -> None:
    store = store_of(name, RowWiseAdagrad(learning_rate=0.1), [RowTable("t", 2, 1)])
    store.reset_parameters()
    before = store.rows("t").clone()
    (3 * store(torch.tensor([1]), 1)).sum().backward()
    torch.testing.assert_close(before - store.rows("t"), torch.tensor([[0.0], [0.1]]))  # g / sqrt(g**2) = 1
    torch.testing.assert_close(store.optimizer_rows("t")["sum"], torch.tensor([0.0, 9.0]))


@pytest.mark.parametrize("name", STORES)
def test_untouched_rows_never_move(name: str) -> None:
    store = store_of(name, Adagrad(learning_rate=0.1))
    before = {key: value.clone() for key, value in store.state_dict().items()}
    store(torch.tensor([3, 7]), 16).square().sum().backward()
    moved = (store.rows("a") != before["a.weight"]).any(1).nonzero().flatten().tolist()
    assert moved == [3, 7]
    assert torch.equal(store.rows("b"), before["b.weight"])


@pytest.mark.parametrize("name", STORES)
def test_bags_are_sums_and_their_gradient_reaches_each_row(name: str) -> None:
    store = store_of(name, SGD(learning_rate=1.0), [RowTable("t", 4, 4, Init(scale=0.0))])
    sums = store(torch.tensor([1, 2, 2]), 4, torch.tensor([0, 1, 1, 3]))
    assert sums.shape == (3, 4)
    (sums * torch.tensor([[1.0], [5.0], [10.0]])).sum().backward()
    assert store.rows("t")[:, 0].tolist() == [0.0, -1.0, -20.0, 0.0]


@needs_fbgemm
@pytest.mark.parametrize(
    "rule", [SGD(learning_rate=0.1), Adagrad(learning_rate=0.1), RowWiseAdagrad(learning_rate=0.1)]
)
def test_both_stores_train_to_the_same_numbers(rule: RowOptimizer) -> None:
    stores = [store_of("torch", rule), store_of("torchrec", rule)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        for width, rows in ((16, 80), (1, 50), (6, 20)):
            ids = torch.randint(0, rows, (60,), generator=generator)
            for store in stores:
                decayed = decay_lookups(store(ids, width), 0.01)
                bags = store(ids, width, torch.arange(0, 61, 5))
                (decayed.sin().sum() + bags.cos().sum()).backward()
    plain, fused = (store.state_dict() for store in stores)
    assert list(plain) == list(fused)
    for key in plain:
        torch.testing.assert_close(plain[key], fused[key], rtol=1e-5, atol=1e-6, msg=key)


@needs_fbgemm
def test_fresh_rows_depend_on_name_and_seed_alone() -> None:
    alone = store_of("torch", None, [RowTable("b", 30, 16)]).rows("b")
    for name in ("torch", "torchrec"):
        assert torch.equal(store_of(name, None).rows("b"), alone)
    assert not torch.equal(store_of("torch", None, seed=4).rows("b"), alone)


@needs_fbgemm
def test_state_moves_between_the_stores() -> None:
    trained = store_of("torchrec", RowWiseAdagrad())
    trained(torch.tensor([1, 60]), 16).sum().backward()
    other = store_of("torch", RowWiseAdagrad(), seed=9)
    other.load_state_dict(trained.state_dict())
    for key, value in other.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key])


def test_adam_is_torch_adam_where_every_row_is_met_each_step() -> None:
    store = store_of("torch", Adam(learning_rate=0.01), [RowTable("t", 3, 4)])
    weight = store.rows("t").clone().requires_grad_()
    reference = torch.optim.Adam([weight], lr=0.01)
    ids = torch.tensor([0, 1, 2, 1])
    for _ in range(5):
        store(ids, 4).sin().sum().backward()
        reference.zero_grad()
        weight[ids].sin().sum().backward()
        reference.step()
    torch.testing.assert_close(store.rows("t"), weight.detach())


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_that_is_not_lazy_is_torch_adam(weight_decay: float) -> None:
    rule = Adam(learning_rate=0.01, weight_decay=weight_decay, lazy=False)
    store = store_of("torch", rule, [RowTable("t", 4, 4), RowTable("u", 2, 4)])
    weight = store.stack(4).clone().requires_grad_()
    reference = torch.optim.Adam([weight], lr=0.01, weight_decay=weight_decay)
    for step in range(6):  # rows 4 and 5 are never looked up, the others not in every step
        ids = torch.tensor([step % 4, 2, step % 4])
        store(ids, 4).sin().sum().backward()
        decay_rows(store, step, window=4)  # this rule has paid already
        reference.zero_grad()
        weight[ids].sin().sum().backward()
        reference.step()
    torch.testing.assert_close(store.stack(4), weight.detach())


@needs_fbgemm
def test_auto_takes_plain_torch_for_a_rule_fbgemm_lacks() -> None:
    assert isinstance(make_row_store("auto", TABLES, optimizer=Adam()), PlainStore)
    assert not isinstance(make_row_store("auto", TABLES, optimizer=RowWiseAdagrad()), PlainStore)
    with pytest.raises(ConfigError, match=r"'adam': FBGEMM offers 'sgd', 'adagrad', 'row_wise_adagrad'.*'torch'"):
        make_row_store("torchrec", TABLES, optimizer=Adam())


@needs_fbgemm
def test_rows_too_wide_for_fbgemm_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows of width 32768: FBGEMM takes at most 16384"):
        store_of("torchrec", None, [RowTable("wide", 2, 32_768)])


def test_planned_bytes_are_the_bytes_taken() -> None:
    planned = make_row_store("torch", TABLES, optimizer=RowWiseAdagrad(), device="meta")
    taken = make_row_store("torch", TABLES, optimizer=RowWiseAdagrad())
    assert planned.bytes == taken.bytes == sum(taken.rows(t.name).numel() * 4 for t in TABLES)
    states = [state for t in TABLES for state in taken.optimizer_rows(t.name).values()]
    assert planned.optimizer_bytes == sum(state.numel() * 4 for state in states)


def test_rows_are_no_parameters() -> None:
    assert list(store_of("torch", RowWiseAdagrad()).parameters()) == []


def test_bad_stores() -> None:
    with pytest.raises(ConfigError, match="table 'a' is asked for twice with different shapes"):
        store_of("torch", None, [RowTable("a", 3, 4), RowTable("a", 4, 4)])
    with pytest.raises(ConfigError, match="table 'a': num_embeddings = 0: expected at least 1"):
        RowTable("a", 0, 4)
    with pytest.raises(
        ConfigError, match="row_store = 'fast': expected one of 'auto', 'torchrec', 'torchrec_uvm', 'torch'"
    ):
        store_of("fast", None)


def test_a_wrong_state_is_named() -> None:
    store = store_of("torch", None, [RowTable("a", 3, 4)])
    with pytest.raises(RuntimeError, match=r"a.weight: shape \(2, 4\), expected \(3, 4\)"):
        store.load_state_dict({"a.weight": torch.zeros(2, 4)})
