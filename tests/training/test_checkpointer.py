"""Which checkpoints are kept, what is done about a damaged one, and how they are written while training goes on."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from recembed.errors import CheckpointError
from recembed.training import Checkpointer, Trainer, TrainingConfig, read_manifest
from recembed.training import snapshot as snapshot_module
from recembed.training.folder_swap import kept_folders
from recembed.training.tensor_file import write_tensors
from tests.training.planted import loaders, make_model, planted
from tests.training.test_resume import CONFIG, assert_equal, fit, stopping_at


def save(checkpointer: Checkpointer, model: nn.Module, step: int) -> None:
    checkpointer.save_last(model, {}, step=step, epoch=0, progress={})


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_ones_are_kept(tmp_path: Path, keep: int) -> None:
    checkpointer, model = Checkpointer(tmp_path, keep=keep), nn.Linear(1, 1)
    for step in range(1, 6):
        save(checkpointer, model, step)
    assert [read_manifest(place).step for place in kept_folders(tmp_path / "last")] == [5, 4, 3][:keep]
    save(Checkpointer(tmp_path, keep=1), model, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    config = CONFIG.model_copy(update={"checkpoint_every": 2, "evaluate_every": None})
    result, final = fit("torch", tmp_path / "uncut", config=config)
    fit("torch", tmp_path / "cut", config=config, objective=stopping_at(11))
    path = tmp_path / "cut" / "last" / "weights.safetensors"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-100] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    again, resumed = fit("torch", tmp_path / "cut", config=config, resume=True)
    assert again[:-1] == result[:-1]
    assert again[-1] == [f"checkpoint {path.parent} is damaged; went on from last.old, step 10"]
    assert_equal(resumed, final)


def test_with_no_whole_checkpoint_left_the_first_fault_is_told(tmp_path: Path) -> None:
    fit("torch", tmp_path, objective=stopping_at(9))
    for name in ("last", "last.old"):
        (tmp_path / name / "training.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last/training\.safetensors was changed after it was saved"):
        fit("torch", tmp_path, resume=True)


@pytest.mark.parametrize("row_store", ["torch", "torchrec"])
def test_written_in_the_background_they_are_those_of_their_step(tmp_path: Path, row_store: str) -> None:
    behind = CONFIG.model_copy(update={"checkpoint_in_background": True, "checkpoint_every": 3})
    before = behind.model_copy(update={"checkpoint_in_background": False})
    (result, final), (other, again) = (fit(row_store, tmp_path / str(c is behind), config=c) for c in (behind, before))
    assert result == other
    assert_equal(final, again)
    for name in ("last", "last.old", "best"):
        digests = [read_manifest(tmp_path / folder / name).files for folder in ("True", "False")]
        assert digests[0] == digests[1], name


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, written = threading.Event(), []

    def slow(path: Path, pieces: Any) -> str:
        assert trained.wait(60)  # a training that waited would never come to the next step
        written.append(path.name)
        return write_tensors(path, pieces)

    steps = 0

    def objective(model: nn.Module, batch: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 5:  # the checkpoint of step 3 is under way
            assert not written
            trained.set()
        return torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch.labels[:, 0])

    monkeypatch.setattr(snapshot_module, "write_tensors", slow)
    checkpoint = Checkpointer(tmp_path, planted()[0], background=True)
    config = TrainingConfig(batch_size=500, checkpoint_every=3)
    Trainer(make_model("torch"), config).fit(loaders(config)[0], objective=objective, checkpoint=checkpoint)
    assert "weights.safetensors" in written
    assert read_manifest(tmp_path / "last").step == 10


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    config = CONFIG.model_copy(
        update={"checkpoint_every": 2, "evaluate_every": None, "checkpoint_in_background": background}
    )
    result, final = fit("torch", tmp_path / "uncut", config=config)
    files = 0

    def full(path: Path, pieces: Any) -> str:
        nonlocal files
        files += 1
        if files == 8:  # the second file of the fourth checkpoint, half of it
            path.write_bytes(b"\0" * 1000)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_tensors(path, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(snapshot_module, "write_tensors", full)
        with pytest.raises(
            CheckpointError, match=r"cannot write checkpoint .*last: No space left on device; free some"
        ):
            fit("torch", tmp_path / "cut", config=config)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["last", "last.old"]
    assert read_manifest(tmp_path / "cut" / "last").step == 6
    again, resumed = fit("torch", tmp_path / "cut", config=config, resume=True)
    assert again == result
    assert_equal(resumed, final)
