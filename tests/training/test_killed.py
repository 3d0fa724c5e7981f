"""Killed without warning, at random moments and while saving, and resumed: the weights of the run that was never cut."""

import multiprocessing
import random
import signal
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from torch import Tensor

from recembed.training import TrainingConfig, read_manifest
from recembed.training.folder_swap import kept_folders
from recembed.training.manifest import verify_files
from recembed.training.saved_tensors import SavedTensors
from tests.training.test_resume import CONFIG, assert_equal, fit, noisy_objective

LONG = CONFIG.model_copy(update={"epochs": 12, "checkpoint_every": 2})


def child(folder: Path, row_store: str, config: TrainingConfig, began: Event) -> None:
    """Train from the last checkpoint on; ``began`` is set at the first step."""

    def objective(model: object, batch: object) -> Tensor:
        began.set()
        return noisy_objective(model, batch)  # type: ignore[arg-type]

    fit(row_store, folder, config=config, objective=objective, resume=True)


@pytest.fixture(scope="module")
def warm() -> ForkServerContext:
    """Children of a process that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_killed"])
    return context


def kill(context: ForkServerContext, folder: Path, row_store: str, config: TrainingConfig, seconds: float) -> int:
    """Train for ``seconds`` after the first step, kill, and return the step of the newest whole checkpoint.

    A run that has no step left to do ends by itself.
    """
    began = context.Event()
    process = context.Process(target=child, args=(folder, row_store, config, began))
    process.start()
    deadline = time.monotonic() + 120
    while not began.wait(0.05) and process.is_alive():
        assert time.monotonic() < deadline
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    places = kept_folders(folder / "last")
    for place in places:
        verify_files(place, read_manifest(place))  # a kill leaves nothing that is not whole
    return read_manifest(places[0]).step if places else 0


def tensors(folder: Path) -> dict[str, Tensor]:
    paths = (folder / f"{kind}.safetensors" for kind in ("weights", "training"))
    return {name: saved.read(name) for path in paths for saved in [SavedTensors([path])] for name in saved.shapes}


def kill_and_compare(
    context: ForkServerContext, folder: Path, row_store: str, config: TrainingConfig, kills: int
) -> list[int]:
    draw = random.Random(f"{row_store} {kills}")
    began = time.monotonic()
    result, final = fit(row_store, folder / "uncut", config=config)
    longest = 1.5 * (time.monotonic() - began) / kills  # so that the kills fall all over the run, however fast it is
    steps = [kill(context, folder / "cut", row_store, config, draw.random() * longest) for _ in range(kills)]
    assert steps == sorted(steps)
    again, resumed = fit(row_store, folder / "cut", config=config, resume=True)
    assert again == result
    assert_equal(resumed, final)
    assert_equal(tensors(folder / "cut" / "last"), tensors(folder / "uncut" / "last"))
    return steps


def test_killed_three_times(warm: ForkServerContext, tmp_path: Path) -> None:
    kill_and_compare(warm, tmp_path, "torch", LONG.model_copy(update={"epochs": 4}), 3)


@pytest.mark.slow
@pytest.mark.parametrize("row_store", ["torch", "torchrec"])
@pytest.mark.parametrize("background", [False, True])
def test_killed_at_twenty_random_moments(
    warm: ForkServerContext, tmp_path: Path, row_store: str, background: bool
) -> None:
    config = LONG.model_copy(update={"checkpoint_in_background": background})
    assert len(set(kill_and_compare(warm, tmp_path, row_store, config, 20))) > 5
