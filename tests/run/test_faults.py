"""What goes wrong with several processes, and with the one that is killed: said in words, and nothing is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from recembed.training import read_manifest
from recembed.training.manifest import verify_files
from recembed.training.saved_tensors import SavedTensors
from tests.run.clicks import clicks, settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    clicks().write_parquet(folder / "clicks.parquet")
    raw = settings(folder / "clicks.parquet")
    raw["training"] |= {"epochs": 4, "threads": 1, "checkpoint_every": 3}
    (folder / "short.yaml").write_text(yaml.safe_dump(raw))
    raw["training"]["epochs"] = 10_000
    (folder / "endless.yaml").write_text(yaml.safe_dump(raw))
    return folder


def start(*words: Any, module: str = "recembed", **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=400)
    return process.returncode, said


def children(process: subprocess.Popen[str]) -> list[int]:
    """Return the process ids of the ranks, in their order."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return sorted(map(int, found.stdout.split()))


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    while not (run / "checkpoint" / "last" / "manifest.json").exists() and process.poll() is None:
        time.sleep(0.05)


def final(run: Path) -> dict[str, torch.Tensor]:
    place = run / "checkpoint" / "last"
    found = {}
    for kind in ("weights", "training"):
        saved = SavedTensors(read_manifest(place).tensor_files(place, kind))
        for name, shape in saved.shapes.items():
            found[name] = saved.rows(name, torch.arange(shape[0])) if len(shape) == 2 else saved.read(name)
    return found


def assert_same(first: Path, second: Path) -> None:
    one, other = final(first), final(second)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert torch.equal(values, other[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_is_named_and_the_run_goes_on(folder: Path, rank: int) -> None:
    run = folder / f"dies-{rank}"
    process = start("train", folder / "endless.yaml", "--out", run, "--nproc", 2)
    wait_for_checkpoint(run, process)
    os.kill(children(process)[rank], signal.SIGKILL)
    code, said = finished(process)
    assert code == 2
    assert f"rank {rank} was ended by SIGKILL; go on from the last checkpoint with --resume" in said
    assert f"rank {1 - rank} waited in vain for" in said
    assert f"rank {rank} ({socket.gethostname()}) is gone, or stuck" in said
    again = start("train", folder / "endless.yaml", "--out", run, "--nproc", 2, "--resume")
    before = read_manifest(run / "checkpoint" / "last").step
    while read_manifest(run / "checkpoint" / "last").step == before and again.poll() is None:
        time.sleep(0.2)
    again.send_signal(signal.SIGTERM)
    code, said = finished(again)
    assert code == 130, said
    assert "interrupted, and saved; go on with" in said


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_after_the_same_step(folder: Path) -> None:
    run = folder / "signalled"
    process = start("train", folder / "endless.yaml", "--out", run, "--nproc", 2)
    wait_for_checkpoint(run, process)
    os.kill(children(process)[1], signal.SIGTERM)
    code, said = finished(process)
    assert code == 130, said
    assert "interrupted, and saved" in said
    assert "waited in vain" not in said
    place = run / "checkpoint" / "last"
    verify_files(place, read_manifest(place))


def test_a_port_in_use_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        code, said = finished(start("train", folder / "short.yaml", "--out", folder / "port", **environment))
    assert code == 2
    assert f"rank 0 of 2 could not meet the others at 127.0.0.1:{port}" in said
    assert "where that port is in use, name another one as MASTER_PORT" in said


@pytest.mark.slow
def test_torchrun_starts_it_again_after_a_rank_was_killed(folder: Path) -> None:
    run, uncut = folder / "elastic", folder / "uncut-2"
    code, said = finished(start("train", folder / "short.yaml", "--out", uncut, "--nproc", 2))
    assert code == 0, said
    words = ("--standalone", "--nproc-per-node", 2, "--max-restarts", 2, "-m", "recembed")
    process = start(*words, "train", folder / "short.yaml", "--out", run, module="torch.distributed.run")
    wait_for_checkpoint(run, process)
    os.kill(children(process)[1], signal.SIGKILL)
    code, said = finished(process)
    assert code == 0, said
    assert (run / "metrics.json").is_file()
    assert_same(run, uncut)
