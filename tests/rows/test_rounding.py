"""Rows of half precision: rounded at random without bias, the same noise wherever they lie."""

import importlib.util

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import SGD, Adagrad, Adam, Init, PlainStore, RowDtype, RowOptimizer, RowTable, make_row_store
from recembed.rows.rounding import Rounding, round_at_random
from recembed.rows.row_table import Part

HALVES: tuple[RowDtype, ...] = ("float16", "bfloat16")
every_half = pytest.mark.parametrize("dtype", HALVES)
needs_fbgemm = pytest.mark.skipif(importlib.util.find_spec("fbgemm_gpu") is None, reason="fbgemm is not installed")
NOISE = torch.arange(-(2**15), 2**15).short()  # every noise there is


@every_half
@pytest.mark.parametrize("value", [0.1, -0.1, 1 / 3, -77.7, 3e-6, -1.1e-7, 1000.3])
def test_the_mean_over_all_noises_is_the_value(dtype: RowDtype, value: float) -> None:
    kind = getattr(torch, dtype)
    rounded = round_at_random(torch.full((2**16,), value), NOISE, kind)
    low, high = rounded.float().min(), rounded.float().max()
    exact = torch.tensor(value)
    assert low < exact < high and torch.nextafter(rounded.min(), rounded.max()) == rounded.max()
    gap = high - low
    # float16 draws as many numbers as it cuts bits off; of numbers below 6e-5 it cuts more
    assert abs(rounded.double().mean() - exact.double()) <= gap * (2**-13 if abs(value) < 6e-5 else 1e-9)


@every_half
@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 2.0**-24, -1024.0])
def test_numbers_that_fit_stay(dtype: RowDtype, value: float) -> None:
    rounded = round_at_random(torch.full((2**16,), value), NOISE, getattr(torch, dtype))
    assert torch.equal(rounded.float(), torch.full((2**16,), value))


def store_of(dtype: RowDtype, optimizer: RowOptimizer, *tables: RowTable, seed: int = 3) -> PlainStore:
    whole = [RowTable(t.name, t.num_embeddings, t.embedding_dim, t.init, t.part, dtype) for t in tables]
    return PlainStore(whole, optimizer=optimizer, seed=seed)


@every_half
def test_steps_below_half_a_gap_add_up(dtype: RowDtype) -> None:
    store = store_of(dtype, SGD(learning_rate=1e-4), RowTable("t", 64, 16))
    store.write_rows("t", 1.0)
    for _ in range(200):  # gaps below 1 are 5e-4 and 4e-3: rounded to nearest every row would still be 1
        store.gather({16: (torch.arange(64), None)})[16].sum().backward()
    moved = 1 - store.rows("t")
    assert moved.mean().item() == pytest.approx(0.02, rel=0.1)
    assert store.held("t").dtype == getattr(torch, dtype) and len(moved.unique()) > 3


@every_half
def test_optimizer_states_and_all_that_comes_out_are_float32(dtype: RowDtype) -> None:
    store = store_of(dtype, Adam(), RowTable("t", 9, 4), RowTable("u", 2, 4))
    found = store.gather({4: (torch.tensor([8, 10]), None)})[4]
    found.sum().backward()
    assert found.dtype == torch.float32 == store.read_rows("u").dtype
    kinds = {key: values.dtype for key, values in store.state_dict().items()}
    assert kinds.pop("lookups") == torch.int64
    assert {kind for key, kind in kinds.items() if key.endswith(".weight")} == {getattr(torch, dtype)}
    assert {kind for key, kind in kinds.items() if not key.endswith(".weight")} == {torch.float32}
    assert store.bytes == 2 * 11 * 4 and store.optimizer_bytes == 4 * 11 * (1 + 4 + 4)


@every_half
def test_sums_of_bags_are_not_rounded(dtype: RowDtype) -> None:
    store = store_of(dtype, SGD(), RowTable("t", 300, 1, Init(0.0)))
    store.write_rows("t", torch.cat([torch.full((1, 1), 1024.0), torch.ones(299, 1)]))
    assert store(torch.arange(300), 1, torch.tensor([0, 300])).item() == 1323.0  # a bfloat16 near it is 1320 or 1328


@every_half
def test_every_row_moves_at_random_too_where_the_rule_moves_all(dtype: RowDtype) -> None:
    store = store_of(dtype, Adam(learning_rate=1e-4, lazy=False), RowTable("t", 64, 16))
    store.write_rows("t", 1.0)
    for _ in range(20):
        store.gather({16: (torch.arange(64), None)})[16].sum().backward()
    assert (1 - store.rows("t")).mean().item() == pytest.approx(2e-3, rel=0.3)


def train(store: PlainStore, rows: Tensor, columns: slice, steps: int) -> None:
    for step in range(steps):
        target = torch.randn(30, 8, generator=torch.Generator().manual_seed(step))[rows, columns]
        found = store.gather({target.shape[1]: (torch.arange(len(rows)), None)})[target.shape[1]]
        (found * target).sum().backward()


@every_half
def test_parts_of_a_table_get_the_noise_of_the_whole(dtype: RowDtype) -> None:
    rule = Adagrad(learning_rate=0.05)
    whole = store_of(dtype, rule, RowTable("t", 30, 8))
    train(whole, torch.arange(30), slice(0, 8), steps=4)
    part = store_of(dtype, rule, RowTable("x", 12, 3, part=Part("t", 30, 8, first_row=7, first_column=5)))
    train(part, torch.arange(7, 19), slice(5, 8), steps=4)
    assert torch.equal(part.held("x"), whole.held("t")[7:19, 5:])
    rounding = Rounding([RowTable("a", 4, 4), RowTable("b", 4, 4)], torch.float16, seed=0)
    alone = Rounding([RowTable("b", 4, 4)], torch.float16, seed=0)
    rows, count = torch.rand(4, 4), torch.tensor(3)
    assert torch.equal(rounding(rows, torch.arange(4, 8), count), alone(rows, torch.arange(4), count))
    assert not torch.equal(rounding(rows, torch.arange(4, 8), count), rounding(rows, torch.arange(4), count))


@every_half
def test_a_loaded_store_goes_on_bit_for_bit(dtype: RowDtype) -> None:
    rule = Adagrad(learning_rate=0.05)
    whole, begun = (store_of(dtype, rule, RowTable("t", 30, 8)) for _ in range(2))
    train(whole, torch.arange(30), slice(0, 8), steps=3)
    train(begun, torch.arange(30), slice(0, 8), steps=3)
    loaded = store_of(dtype, rule, RowTable("t", 30, 8))
    loaded.load_state_dict(begun.state_dict())
    for store in (whole, loaded):
        train(store, torch.arange(30), slice(0, 8), steps=2)
    assert all(torch.equal(values, whole.state_dict()[key]) for key, values in loaded.state_dict().items())
    loaded.get_buffer("lookups").zero_()
    loaded.load_state_dict({**begun.state_dict(), "lookups": torch.tensor(50)})
    train(loaded, torch.arange(30), slice(0, 8), steps=2)
    assert not torch.equal(loaded.held("t"), whole.held("t"))


@needs_fbgemm
@every_half
def test_fbgemm_on_cpu_is_refused_and_auto_is_the_plain_store(dtype: RowDtype) -> None:
    table = RowTable("t", 3, 4, dtype=dtype)
    with pytest.raises(
        ConfigError, match=rf"row_dtype = '{dtype}': on CPU FBGEMM .* set row_store to 'torch' or 'auto'"
    ):
        make_row_store("torchrec", [table], optimizer=SGD())
    assert type(make_row_store("auto", [table], optimizer=SGD())) is PlainStore


@needs_fbgemm
def test_fbgemm_on_cpu_still_loses_small_steps() -> None:
    """Why it is refused: where this fails, FBGEMM's float16 rows may be offered on CPU."""
    from recembed.rows.torchrec import _kernel

    kernel = _kernel(4, 4, SGD(learning_rate=1e-4), torch.float16, torch.device("cpu"), cached=False)
    rows = kernel.split_embedding_weights()[0]
    rows.fill_(1.0)
    for _ in range(50):
        kernel(torch.arange(4), torch.arange(5)).backward(torch.ones(4, 4))
    assert rows.dtype == torch.float16 and (rows == 1).all()


def test_what_half_precision_cannot_do_is_said() -> None:
    with pytest.raises(
        ConfigError, match=r"weight_decay = 1e-05: its small factors are lost on float16 rows; use .*l2"
    ):
        store_of("float16", SGD(weight_decay=1e-5), RowTable("t", 3, 4))
    with pytest.raises(ConfigError, match="hold rows as bfloat16 and float32: expected one type for all"):
        PlainStore([RowTable("a", 3, 4), RowTable("b", 3, 4, dtype="bfloat16")], optimizer=None)
