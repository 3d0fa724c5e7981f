"""The scaling model on paper: worked numbers, and the bytes that two processes really send."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.rows import RowTable, RowWiseAdagrad
from recembed.rows.process_group import Coming, ProcessGroup
from recembed.rows.sharded import ShardedStore
from recembed.rows.sharding_plan import ShardingPlan, TablePlan
from tests.rows.two_processes import run

PATH = Path(__file__).parent.parent / "examples" / "scale" / "scaling_model.py"


def scaling_model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling_model", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling_model"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_bytes_by_hand() -> None:
    model = scaling_model()
    assert model.lookup_bytes(1000, 16, 1) == 0
    assert model.lookup_bytes(1000, 16, 2) == 500 * (8 + 64 + 64)
    assert model.lookup_bytes(1000, 16, 8) == 875 * 136
    assert model.dense_bytes(1_000_000, 4) == 6e6


def test_a_terabyte_needs_more_than_eight_and_many_cost_efficiency() -> None:
    lines = scaling_model().report(scaling_model().Job(), scaling_model().Machine(), [8, 64, 512])
    assert [line.split()[2] for line in lines[1:]] == ["no", "yes", "yes"]
    shares = [int(line.split()[-2].rstrip("%")) for line in lines[1:]]
    assert 100 > shares[0] > shares[1] > shares[2] > 0


def counted(processes: ProcessGroup) -> tuple[int, int]:
    """Return the bytes that this process sent to the other one in a step, and the unique rows it asked for."""
    plan = ShardingPlan(world_size=2, tables={"item": TablePlan(sharding="row_wise")})
    store = ShardedStore([RowTable("item", 1000, 16)], optimizer=RowWiseAdagrad(), plan=plan, processes=processes)
    sent, exchange = 0, processes.start_exchange

    def counting(values: Tensor, given: Any, taken: Any) -> Coming:
        nonlocal sent
        sent += given[1 - processes.rank] * values.element_size() * values[:1].numel()
        return exchange(values, given, taken)

    processes.start_exchange = counting  # type: ignore[method-assign]
    processes.share = 0.5
    addresses = torch.arange(processes.rank, 1000, 5).repeat(3)  # 200 rows, three times each, half of them there
    store(addresses, 16).sum().backward()
    return sent, len(addresses.unique())


@pytest.mark.slow
def test_two_processes_send_what_the_model_says() -> None:
    model = scaling_model()
    for said in run(counted):
        assert isinstance(said, tuple), said
        assert said[0] == model.lookup_bytes(said[1], 16, 2) == 13_600
