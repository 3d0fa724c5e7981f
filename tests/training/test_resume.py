import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.data import Loader
from recembed.errors import CheckpointError
from recembed.training import (
    BilevelSearch,
    Checkpointer,
    EarlyStopping,
    Schedule,
    Trainer,
    TrainingConfig,
    TrainResult,
    binary_logloss,
    find_checkpoint,
    read_manifest,
)
from recembed.training.checkpoint import row_states, weights
from tests.training.planted import loaders, make_model, planted

STORES = ("torch", "torchrec")
CONFIG = TrainingConfig(
    epochs=3,
    batch_size=256,
    dense_optimizer={"learning_rate": 0.02},
    schedule=Schedule(kind="cosine", warmup_steps=10),
    early_stopping=EarlyStopping(patience=5),
    evaluate_every=8,
    clip_norm=5.0,
    seed=11,
    threads=1,  # another number adds up in another order
)


def noisy_objective(model: nn.Module, batch: Batch) -> Tensor:
    """A loss that draws from every generator, besides the model's dropout."""
    factor = 1 + 0.1 * random.random() + 0.1 * float(np.random.rand()) + 0.1 * float(np.random.standard_normal())
    return binary_logloss(model, batch) * (factor + 0.1 * random.gauss(0, 1) + 0.1 * torch.rand(()))


def stopping_at(step: int) -> Callable[[nn.Module, Batch], Tensor]:
    count = 0

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal count
        count += 1
        if count == step:
            signal.raise_signal(signal.SIGTERM)
        return noisy_objective(model, batch)

    return objective


def everything(model: nn.Module) -> dict[str, Tensor]:
    return {name: values.clone() for name, values in (weights(model) | row_states(model)).items()}


def told(result: TrainResult) -> tuple[Any, ...]:
    return result.stopped, result.steps, result.history, result.best_value, result.best_step, result.warnings


def fit(row_store: str, folder: Path, *, config: TrainingConfig = CONFIG, **settings: Any) -> tuple[Any, Any]:
    model = make_model(row_store, dropout=0.3)
    background = config.checkpoint_in_background
    checkpoint = Checkpointer(folder, planted()[0], keep=config.checkpoints_kept, background=background)
    settings = {"objective": noisy_objective, **settings}
    result = Trainer(model, config).fit(*loaders(config), checkpoint=checkpoint, **settings)
    return told(result), everything(model)


@pytest.fixture(scope="module", params=STORES)
def uncut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Any]:
    result, final = fit(request.param, tmp_path_factory.mktemp("uncut"))
    assert result[0:2] == ("finished", 60)
    return request.param, result, final


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert torch.equal(values, second[name]), name


@pytest.mark.parametrize("step", [1, 5, 8, 20, 59, 60])
def test_cut_and_resumed_equals_uncut_bit_for_bit(uncut: tuple[str, Any, Any], tmp_path: Path, step: int) -> None:
    row_store, result, final = uncut
    cut, _ = fit(row_store, tmp_path, objective=stopping_at(step))
    assert cut[0:2] == ("interrupted", step)
    assert read_manifest(tmp_path / "last").step == step
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    again, resumed = fit(row_store, tmp_path, resume=True)
    assert again == result
    assert_equal(resumed, final)


def test_cut_many_times(uncut: tuple[str, Any, Any], tmp_path: Path) -> None:
    row_store, result, final = uncut
    again: Any = ("interrupted",)
    runs = 0
    while again[0] == "interrupted":
        again, resumed = fit(row_store, tmp_path, objective=stopping_at(7), resume=True)
        runs += 1
    assert runs == 9
    assert again == result
    assert_equal(resumed, final)


def test_own_learning_rates_survive_a_cut(tmp_path: Path) -> None:
    def trained(folder: Path, *cuts: int) -> dict[str, Tensor]:
        for step in (*cuts, 0):
            model = make_model("torch")
            model.deep[0].weight.learning_rate_factor = 0.1
            checkpoint = Checkpointer(folder, planted()[0])
            Trainer(model, CONFIG).fit(
                *loaders(CONFIG), objective=stopping_at(step), checkpoint=checkpoint, resume=True
            )
        return everything(model)

    slowed = trained(tmp_path / "uncut")
    assert_equal(slowed, trained(tmp_path / "cut", 20))


def test_a_cut_search_goes_on_with_the_same_batches_and_states(tmp_path: Path) -> None:
    def trained(folder: Path, *cuts: int) -> dict[str, Tensor]:
        for step in (*cuts, 0):
            model = make_model("torch", dropout=0.3)
            other = Loader(planted()[2], 96, shuffle=True, seed=5)
            search = BilevelSearch([model.deep[0].weight, model.deep[0].bias], other)
            checkpoint, objective = Checkpointer(folder, planted()[0]), stopping_at(2 * step)  # two losses a step
            Trainer(model, CONFIG).fit(
                *loaders(CONFIG), objective=objective, checkpoint=checkpoint, resume=True, search=search
            )
            assert read_manifest(folder / "last").step == (step or 60)
        return everything(model)

    searched = trained(tmp_path / "uncut")
    assert_equal(searched, trained(tmp_path / "cut", 17))


def test_cut_during_an_evaluation(uncut: tuple[str, Any, Any], tmp_path: Path) -> None:
    row_store, result, final = uncut
    train, valid = loaders(CONFIG)
    passes = 0

    class Signalled:
        def __iter__(self) -> Iterator[Batch]:
            nonlocal passes
            passes += 1
            for batch in valid:
                yield batch
                if passes == 2:
                    signal.raise_signal(signal.SIGINT)
                    passes += 1  # once

    model = make_model(row_store, dropout=0.3)
    checkpoint = Checkpointer(tmp_path, planted()[0])
    cut = Trainer(model, CONFIG).fit(train, Signalled(), objective=noisy_objective, checkpoint=checkpoint)
    assert (cut.stopped, cut.steps, len(cut.history)) == ("interrupted", 16, 1)
    again, resumed = fit(row_store, tmp_path, resume=True)
    assert again == result
    assert_equal(resumed, final)


def test_killed_between_last_and_best(
    uncut: tuple[str, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_store, result, final = uncut

    def killed(self: Checkpointer) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "keep_last_as_best", killed)
        with pytest.raises(SystemExit):
            fit(row_store, tmp_path)
    assert find_checkpoint(tmp_path) == tmp_path / "last"
    fit(row_store, tmp_path, resume=True, objective=stopping_at(1))
    assert read_manifest(tmp_path / "best").step == 8
    again, resumed = fit(row_store, tmp_path, resume=True)
    assert again == result
    assert_equal(resumed, final)


def test_a_finished_run_resumes_to_the_same_result(uncut: tuple[str, Any, Any], tmp_path: Path) -> None:
    row_store, result, final = uncut
    fit(row_store, tmp_path)
    again, resumed = fit(row_store, tmp_path, resume=True, objective=None)  # no step is done
    assert again == result
    assert_equal(weights_only(resumed), weights_only(final))


def weights_only(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in tensors.items() if not name.endswith(".sum")}


def test_resume_without_a_checkpoint_begins(uncut: tuple[str, Any, Any], tmp_path: Path) -> None:
    row_store, result, final = uncut
    again, begun = fit(row_store, tmp_path / "new", resume=True)
    assert again == result
    assert_equal(begun, final)


def test_checkpoints_between_evaluations(tmp_path: Path) -> None:
    seen = []

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        last = tmp_path / "last"
        seen.append(read_manifest(last).step if last.exists() else 0)
        return binary_logloss(model, batch)

    config = TrainingConfig(batch_size=500, checkpoint_every=3)
    fit("torch", tmp_path, config=config, objective=objective)
    assert seen == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]
    assert read_manifest(tmp_path / "last").step == 10


def test_a_resume_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    fit("torch", tmp_path, objective=stopping_at(5))

    def refused(words: str, **changes: Any) -> None:
        config = TrainingConfig.model_validate({**CONFIG.model_dump(), **changes})
        with pytest.raises(CheckpointError, match=words):
            fit("torch", tmp_path, config=config, resume=True)

    refused("batch_size was 256, now it is 128", batch_size=128)
    refused("seed was 11, now it is 12", seed=12)
    refused(
        r"optimiser states exp_avg, exp_avg_sq, step, but SGD keeps momentum_buffer; resume with the dense_optimizer",
        dense_optimizer={"kind": "sgd"},
    )


def test_more_epochs_go_on_from_the_end(tmp_path: Path) -> None:
    constant = {**CONFIG.model_dump(), "schedule": {"kind": "constant"}, "early_stopping": None}
    short = TrainingConfig.model_validate({**constant, "epochs": 2, "evaluate_every": None})
    long = short.model_copy(update={"epochs": 3})
    fit("torch", tmp_path / "a", config=short)
    grown, first = fit("torch", tmp_path / "a", config=long, resume=True)
    whole, second = fit("torch", tmp_path / "b", config=long)
    assert grown == whole
    assert_equal(first, second)


_SCRIPT = """
from tests.training.test_resume import *
def slow(model, batch):
    time.sleep(0.05)
    Path(sys.argv[2]).touch()
    return noisy_objective(model, batch)
result, _ = fit("torch", Path(sys.argv[1]), objective=slow)
sys.stdout.write(f"{result[0]} {result[1]}")
"""


@pytest.mark.parametrize("uncut", ["torch"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_signalled_leaves_cleanly(
    uncut: tuple[str, Any, Any], tmp_path: Path, number: signal.Signals
) -> None:
    row_store, result, final = uncut
    started, environment = tmp_path / "started", {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", _SCRIPT, str(tmp_path / "run"), str(started)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(arguments, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while not started.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    stopped, step = output.split()
    assert (process.returncode, stopped) == (0, "interrupted")
    assert read_manifest(tmp_path / "run" / "last").step == int(step) < 60
    again, resumed = fit(row_store, tmp_path / "run", resume=True)
    assert again == result
    assert_equal(resumed, final)
