"""Which device a process takes, and a whole run on a device that is only pretended: nothing of it is left on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recembed.config import RunConfig
from recembed.errors import ConfigError
from recembed.run import train
from recembed.run.device import backend_of, choose_device
from tests.run.clicks import clicks, settings

ROOT = Path(__file__).parents[2]


def see(monkeypatch: pytest.MonkeyPatch, gpus: int, rank: str | None = None) -> list[torch.device]:
    """Let torch see so many GPUs; return the list that will hold what is set as the current one."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    return chosen


def test_auto_is_the_gpu_of_the_local_rank_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, gpus=0, rank="3")
    assert choose_device("auto") == torch.device("cpu")
    chosen = see(monkeypatch, gpus=4, rank="3")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 3)
    assert chosen == [torch.device("cuda", 3)] * 2
    assert choose_device("cpu") == torch.device("cpu")
    see(monkeypatch, gpus=4)
    assert choose_device("auto") == torch.device("cuda", 0)


def test_cuda_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, gpus=0)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        ConfigError, match=r"training.device = 'cuda': this torch \(.*\) has no CUDA; .* 'cpu' or 'auto'"
    ):
        choose_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ConfigError, match="sees no GPU"):
        choose_device("cuda")
    see(monkeypatch, gpus=2, rank="2")
    with pytest.raises(ConfigError, match="process 2 of this machine finds 2 GPUs; start at most 2 processes"):
        choose_device("auto")


def test_tensors_on_gpus_go_over_nccl_and_those_in_memory_over_gloo() -> None:
    assert backend_of(torch.device("cuda", 1)) == "cpu:gloo,cuda:nccl"
    assert backend_of(torch.device("cpu")) == "gloo"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_run_that_wants_cuda_ends_before_it_begins(tmp_path: Path) -> None:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    raw = settings(tmp_path / "clicks.parquet")
    raw["training"] |= {"device": "cuda"}
    with pytest.raises(ConfigError, match=r"training\.device = 'cuda'"):
        train(RunConfig.parse(raw), tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").glob("*.json"))


PRETENDED = """
import json, sys
from pathlib import Path
import recembed.run.train
from recembed.config import RunConfig
from tests.pretend_device import DEVICE, pretending
from tests.run.clicks import settings
module, place, found = sys.modules["recembed.run.train"], Path(sys.argv[1]), {}
plain = {"embedding_dim": 8, "row_store": "torch", "row_optimizer": {"learning_rate": 0.2}, "l2": 0.01}
runs = {
    "full": plain,
    "half": plain | {"row_dtype": "bfloat16"},
    "warm": plain,
}
choose = module.choose_device
def run(name, embeddings, kind):
    raw = settings(place / "clicks.parquet", embeddings=embeddings)
    raw["training"] |= {"epochs": 2, "threads": 1, "clip_norm": 1.0}
    raw["warm_start"] = str(place / "full-cpu") if name == "warm" else None
    return module.train(RunConfig.parse(raw), place / f"{name}-{kind}", progress=False).metrics["test"]["logloss"]
for name, embeddings in runs.items():
    here = run(name, embeddings, "cpu")
    module.choose_device = lambda wanted: DEVICE
    with pretending():
        there = run(name, embeddings, "there")
    module.choose_device = choose
    found[name] = [here, there]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_run_on_another_device_leaves_nothing_on_the_cpu_and_gives_the_same_numbers(tmp_path: Path) -> None:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    words = [sys.executable, "-W", "ignore", "-c", PRETENDED, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (here, there) in json.loads(done.stdout.splitlines()[-1]).items():
        assert there == pytest.approx(here, abs=2e-3), name
