"""The parent of several processes: exit codes, signals, and which of them failed first."""

import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from recembed.errors import ConfigError, TrainingError
from recembed.run import launch as launch_module
from recembed.run.launch import launch

REAL = subprocess.Popen


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Python lines that the ranks run in place of the command."""
    lines: list[str] = []

    def start(command: list[str], *, env: dict[str, str], stdout: int | None) -> subprocess.Popen[bytes]:
        return REAL([sys.executable, "-S", "-c", lines[int(env["RANK"])]], env=env, stdout=stdout)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(launch_module, "_GRACE_SECONDS", 1.0)
    return lines


def test_all_went_well(scripts: list[str]) -> None:
    words = "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"
    scripts += [f"import os; [os.environ[name] for name in {words}]"] * 3
    assert launch(["train"], 3) == 0


def test_the_code_of_the_first_that_fails_counts_and_the_others_end(scripts: list[str]) -> None:
    scripts += ["import time; time.sleep(100)", "raise SystemExit(2)"]
    began = time.monotonic()
    assert launch(["train"], 2) == 2
    assert time.monotonic() - began < 60


def test_a_rank_that_is_killed_is_named(scripts: list[str]) -> None:
    scripts += ["import time; time.sleep(100)", "import os; os.kill(os.getpid(), 9)"]
    with pytest.raises(
        TrainingError, match=r"rank 1 was ended by SIGKILL; go on from the last checkpoint with --resume"
    ):
        launch(["train"], 2)


def test_sigterm_goes_to_all(scripts: list[str]) -> None:
    wait = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(130)); time.sleep(100)"
    scripts += [wait, wait + "; import os", "import os, time; time.sleep(3); os.kill(os.getppid(), 15)"]
    before: Any = signal.getsignal(signal.SIGTERM)
    assert launch(["train"], 3) == 130
    assert signal.getsignal(signal.SIGTERM) == before


def test_no_process_is_none(scripts: list[str]) -> None:
    with pytest.raises(ConfigError, match="--nproc 0: expected at least 1 process"):
        launch(["train"], 0)
