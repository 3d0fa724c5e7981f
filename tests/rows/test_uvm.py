"""Rows in the host's memory that a GPU caches: what is handed out is never old, what is written is never lost.

The cache is played by a kernel of the CPU: what it looked up it holds apart and moves there, until it is told to write back. So
the protocol is tested here, not FBGEMM's own cache.
"""

import importlib.util
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import Adagrad, Processes, RowOptimizer, RowTable, RowWiseAdagrad, make_row_store, memory

if importlib.util.find_spec("fbgemm_gpu") is None:
    pytest.skip("fbgemm is not installed", allow_module_level=True)

from recembed.rows import torchrec
from recembed.rows.process_group import ProcessGroup
from recembed.rows.sharded import ShardedStore
from recembed.rows.sharded_stores import ShardedStores
from recembed.rows.torchrec import TorchRecStore
from recembed.rows.uvm import UvmStore

TABLES = [RowTable("item", 40, 8), RowTable("day", 7, 8), RowTable("weight", 40, 1)]
_kernel = torchrec._kernel


class Cached:
    """A kernel whose rows lie in ``host``, but for those it looked up, which lie in the kernel."""

    forgets = False

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        (self.lines,) = kernel.split_embedding_weights()
        self.host = self.lines.clone()
        self.inside = torch.zeros(len(self.lines), dtype=torch.bool)

    def __call__(self, addresses: Tensor, offsets: Tensor) -> Tensor:
        enters = torch.zeros_like(self.inside)
        enters[addresses] = True
        enters &= ~self.inside
        self.lines[enters] = self.host[enters]
        self.lines[~self.inside & ~enters] = torch.nan  # who reads what is not in the cache sees it
        self.inside |= enters
        return self.kernel(addresses, offsets)  # type: ignore[no-any-return]

    def flush(self) -> None:
        if not self.forgets:
            self.host[self.inside] = self.lines[self.inside]

    def reset_cache_states(self) -> None:
        self.inside[:] = False

    def split_embedding_weights(self) -> list[Tensor]:
        return [self.host]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)


@pytest.fixture(autouse=True)
def _pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*given: Any, cached: bool) -> Any:
        found = _kernel(*given, cached=False)
        return Cached(found) if cached else found

    monkeypatch.setattr(torchrec, "_kernel", kernel)


def stores(optimizer: RowOptimizer) -> tuple[UvmStore, TorchRecStore]:
    return UvmStore(TABLES, optimizer=optimizer, seed=3), TorchRecStore(TABLES, optimizer=optimizer, seed=3)


def step(store: TorchRecStore, number: int, *, between: bool = False) -> None:
    """Look up six addresses of each width, read a table in between if asked to, and move them."""
    drawn = torch.Generator().manual_seed(number)
    found = {w: store(torch.randint(n, (6,), generator=drawn), w) for w, n in store.stack_rows.items()}
    if between:
        store.rows("item").sum()
    weights = torch.rand(6, generator=drawn)
    torch.stack([(rows.square().sum(1) * weights).sum() for rows in found.values()]).sum().backward()


def same(left: TorchRecStore, right: TorchRecStore) -> None:
    for (name, a), (other, b) in zip(left.named_tensors(), right.named_tensors(), strict=True):
        assert name == other
        assert torch.equal(a, b), name


@pytest.mark.parametrize("optimizer", [RowWiseAdagrad(learning_rate=0.1), Adagrad(learning_rate=0.1)])
def test_rows_are_read_as_they_are_after_every_step(optimizer: RowOptimizer) -> None:
    cached, plain = stores(optimizer)
    same(cached, plain)
    for number in range(6):
        for store in (cached, plain):
            step(store, number, between=number % 2 == 1)
        if number != 2:  # two steps without a reading between them
            same(cached, plain)


def test_what_is_written_between_steps_is_looked_up() -> None:
    cached, plain = stores(RowWiseAdagrad(learning_rate=0.1))
    for store in (cached, plain):
        step(store, 0)
        step(store, 1)
        store.write_rows("item", torch.full((3, 8), 0.25), torch.tensor([1, 5, 30]))
        store.rows("day")[2] = 1.0
        step(store, 0)
        step(store, 1, between=True)
    same(cached, plain)
    assert torch.equal(cached(torch.arange(40), 8), plain(torch.arange(40), 8))


def test_a_state_that_is_loaded_is_trained_on() -> None:
    cached, plain = stores(RowWiseAdagrad(learning_rate=0.1))
    step(plain, 5)
    state = {name: values.clone() for name, values in plain.state_dict().items()}
    step(cached, 0)  # what its cache holds now must not come back
    cached.load_state_dict(state)
    for store in (cached, plain):
        step(store, 0)
    same(cached, plain)


def test_a_lookup_without_backward_loses_nothing() -> None:
    cached, plain = stores(RowWiseAdagrad(learning_rate=0.1))
    for store in (cached, plain):
        step(store, 0)
        store(torch.arange(6), 8)  # a step that was given up
        store.write_rows("item", 0.5, torch.tensor([3]))
        step(store, 1)
    same(cached, plain)


def test_the_pretended_cache_shows_a_store_that_does_not_write_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cached, "forgets", True)
    cached, plain = stores(RowWiseAdagrad(learning_rate=0.1))
    for store in (cached, plain):
        step(store, 0)
    with pytest.raises(AssertionError, match="weight"):
        same(cached, plain)


def test_it_is_taken_where_rows_are_beyond_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RowWiseAdagrad()
    needed = 4 * (40 * 8 + 7 * 8 + 40) + 4 * (40 + 7 + 40)  # rows, and a number for each row
    monkeypatch.setattr(memory, "available_memory", lambda device: needed)
    assert not memory.beyond_gpu(needed, "cuda")
    assert memory.beyond_gpu(needed + 1, "cuda:0")
    assert not memory.beyond_gpu(needed + 1, "cpu")
    for free, kind in ((needed - 1, UvmStore), (needed, TorchRecStore)):
        monkeypatch.setattr("recembed.rows.beyond_gpu", lambda bytes_, device, free=free: bytes_ > free)
        assert type(make_row_store("auto", TABLES, optimizer=rule)) is kind


@pytest.mark.parametrize(("short", "kernel"), [(False, "fused"), (True, "fused_uvm_caching")])
def test_a_plan_caches_rows_that_are_beyond_the_gpu_of_one_process(
    monkeypatch: pytest.MonkeyPatch, short: bool, kernel: str
) -> None:
    class Two(Processes):
        count = 2

        def tell(self, word: Any) -> list[Any]:
            return [word, short if isinstance(word, bool) else word]  # what rank 1 says of its own GPU

    monkeypatch.setattr(ShardedStore, "__init__", lambda *_, **__: None)
    stores = ShardedStores(cast(ProcessGroup, Two()))
    stores(TABLES, optimizer=RowWiseAdagrad(), seed=0, device="cpu")
    assert stores.plan is not None
    assert {plan.kernel for plan in stores.plan.tables.values()} == {kernel}


def test_it_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"'torchrec_uvm': .* trains on the CPU; set training\.device to 'cuda'"):
        make_row_store("torchrec_uvm", TABLES, optimizer=RowWiseAdagrad())
