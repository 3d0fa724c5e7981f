"""Rows of one number on CPU: the same bits as rows padded to four, in a quarter of the memory."""

import importlib.util

import pytest
import torch

from recembed.rows import SGD, Adagrad, RowOptimizer, RowTable, RowWiseAdagrad

if importlib.util.find_spec("fbgemm_gpu") is None:
    pytest.skip("fbgemm is not installed", allow_module_level=True)

from recembed.rows import torchrec
from recembed.rows.torchrec import TorchRecStore

ROWS = 5_000
RULES = [SGD(learning_rate=0.3), Adagrad(learning_rate=0.3), RowWiseAdagrad(learning_rate=0.3)]


def trained(rule: RowOptimizer) -> tuple[TorchRecStore, list[torch.Tensor]]:
    """Move rows by six batches in which some come often, as bags and one by one; return all that was looked up too."""
    store = TorchRecStore([RowTable("weight", ROWS, 1)], optimizer=rule, seed=1)
    drawn, seen = torch.Generator().manual_seed(0), list[torch.Tensor]()
    for step in range(6):
        store.set_learning_rate(0.3 / (1 + step))
        addresses = (torch.rand(2_600, generator=drawn) ** 4 * ROWS).long()
        found = store(addresses, 1, torch.arange(0, 2_601, 26) if step % 2 else None)
        weights = torch.randn(found.shape, generator=drawn)
        ((found + 1).sin() * weights).sum().backward() if step < 4 else found.sum().backward()
        seen.append(found.detach())
    return store, seen


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_one_number_a_row_trains_as_four_do(rule: RowOptimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, seen = trained(rule)
    monkeypatch.setattr(torchrec, "_padded", lambda width, device: 4)
    padded, expected = trained(rule)
    assert all(torch.equal(left, right) for left, right in zip(seen, expected, strict=True))
    assert narrow.rows("weight").count_nonzero() > 1_000
    for (name, values), (other, wanted) in zip(narrow.named_tensors(), padded.named_tensors(), strict=True):
        assert name == other and torch.equal(values, wanted)
    assert [store.stack(1).untyped_storage().nbytes() for store in (narrow, padded)] == [4 * ROWS, 16 * ROWS]


def test_it_is_only_width_one_on_cpu() -> None:
    places = [torch.device("cpu"), torch.device("cuda")]
    assert [[torchrec._padded(width, place) for width in (1, 2, 4, 6)] for place in places] == [
        [1, 4, 4, 8],
        [4, 4, 4, 8],
    ]


def test_rows_need_neither_torchrec_nor_the_compiler() -> None:
    import subprocess
    import sys

    code = (
        "import sys, torch; from recembed.rows import RowTable, RowWiseAdagrad, make_row_store\n"
        "store = make_row_store('torchrec', [RowTable('t', 3, 4)], optimizer=RowWiseAdagrad())\n"
        "store(torch.tensor([1]), 4).sum().backward()\n"
        "print(*{'fbgemm_gpu', 'torchrec', 'torch._dynamo'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["fbgemm_gpu"]
