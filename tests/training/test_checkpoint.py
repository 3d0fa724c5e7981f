import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from recembed.errors import CheckpointError
from recembed.schema.fitted import FittedSchema
from recembed.training import find_checkpoint, load_checkpoint, read_manifest, save_checkpoint
from recembed.training import snapshot as snapshot_module
from recembed.training.checkpoint import copy_weights, load_training, row_states, weights
from tests.training.planted import make_model, planted

STORES = ("torch", "torchrec")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, folder = make_model("torch", seed=3), tmp_path_factory.mktemp("run") / "checkpoint"
    for states in row_states(model).values():
        states.uniform_()
    return save_checkpoint(folder, model, fitted=planted()[0], config={"seed": 3}, training={}, step=7, epoch=2)


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


@pytest.mark.parametrize("row_store", STORES)
def test_weights_and_row_states_come_back_in_either_store(saved: Path, row_store: str) -> None:
    first, second = make_model("torch", seed=3), make_model(row_store, seed=4)
    assert not all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True))
    manifest = load_checkpoint(saved, second, planted()[0])
    assert (manifest.step, manifest.epoch, manifest.mapping_version) == (7, 2, planted()[0].version)
    for name, values in weights(first).items():
        assert torch.equal(values, weights(second)[name]), name
    assert all(not values.any() for values in row_states(second).values())
    load_training(saved, second)
    for name, values in load_file(saved / "training.safetensors").items():
        assert torch.equal(values, row_states(second)[name.removeprefix("rows/")]), name


def test_what_is_in_the_folder(saved: Path) -> None:
    files = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    manifest = read_manifest(saved)
    assert files == manifest.files.keys() | {"manifest.json"}
    assert {Path(name).suffix for name in files} == {".json", ".yaml", ".parquet", ".safetensors"}  # no pickles
    assert yaml.safe_load((saved / "config.yaml").read_text()) == {"seed": 3}
    assert FittedSchema.load(saved / "fitted").version == planted()[0].version
    names = load_file(saved / "weights.safetensors").keys()
    assert {"embedding.store.user.weight", "embedding.store.user.linear.weight", "deep.0.weight"} <= names
    assert not any(name.endswith(".sum") for name in names)


def test_one_changed_byte_in_any_file_is_named(copied: Path) -> None:
    files = sorted(path for path in copied.rglob("*") if path.is_file())
    assert len(files) == 9
    for path in files:
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(CheckpointError, match=rf"{path.name} was changed after it was saved"):
                load_checkpoint(copied, make_model("torch"))
        path.write_bytes(whole[:-5])
        with pytest.raises(CheckpointError, match=rf"{path.name} was changed after it was saved"):
            load_checkpoint(copied, make_model("torch"))
        path.write_bytes(whole)
    load_checkpoint(copied, make_model("torch"))


def test_a_missing_file_is_named(copied: Path) -> None:
    (copied / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is missing; restore it"):
        load_checkpoint(copied, make_model("torch"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere does not exist; give the folder that training wrote"):
        load_checkpoint(tmp_path / "nowhere", nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match=r"is no checkpoint: it holds no manifest\.json"):
        read_manifest(tmp_path)


def test_another_mapping_is_refused_with_both_versions(saved: Path) -> None:
    fitted = planted()[0]
    other = replace(fitted, key_types={**fitted.key_types, "user": "string"})
    assert other.version != fitted.version
    with pytest.raises(CheckpointError, match=rf"checkpoint .* {fitted.version[:12]}.* {other.version[:12]}"):
        load_checkpoint(saved, make_model("torch"), other)


def test_another_format_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recembed.training.manifest._FORMAT", 2)
    with pytest.raises(CheckpointError, match="has format 1, this version of recembed reads format 2"):
        read_manifest(copied)


def test_another_model_is_named_part_by_part(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    expected = r"lacks 1\.num_batches_tracked, 1\.running_mean.*no 1\.bias.*0\.weight has shape \(3, 2\), the model's has \(4, 2\)"
    other = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(1, affine=False))
    before = {name: values.clone() for name, values in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(tmp_path / "c", other)
    assert all(torch.equal(values, before[name]) for name, values in other.state_dict().items())


def test_tied_parameters_and_buffers_survive(tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        model[2].weight = model[0].weight
        return model

    first, second = build(), build()
    first(torch.randn(8, 3))
    save_checkpoint(tmp_path / "c", first)
    load_checkpoint(tmp_path / "c", second)
    assert second[2].weight is second[0].weight
    assert second[1].num_batches_tracked == 1
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_weights_alone_cannot_be_resumed(saved: Path, tmp_path: Path) -> None:
    copy_weights(saved, tmp_path / "best")
    load_checkpoint(tmp_path / "best", make_model("torch"))
    with pytest.raises(CheckpointError, match="holds weights only, training cannot go on from it"):
        load_training(tmp_path / "best", make_model("torch"))
    weights_file = "weights.safetensors"
    assert (saved / weights_file).stat().st_ino == (tmp_path / "best" / weights_file).stat().st_ino


def test_the_mapping_is_linked_from_the_checkpoint_before(tmp_path: Path) -> None:
    fitted, model = planted()[0], nn.Linear(1, 1)
    save_checkpoint(tmp_path / "c", model, fitted=fitted)
    before = (tmp_path / "c/fitted/vocabulary/user.parquet").stat().st_ino
    save_checkpoint(tmp_path / "c", model, fitted=fitted)
    assert (tmp_path / "c/fitted/vocabulary/user.parquet").stat().st_ino == before
    other = replace(fitted, key_types={**fitted.key_types, "user": "string"})
    save_checkpoint(tmp_path / "c", model, fitted=other)
    assert (tmp_path / "c/fitted/vocabulary/user.parquet").stat().st_ino != before
    load_checkpoint(tmp_path / "c", model, other)


def test_a_folder_of_checkpoints_stands_for_the_best(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", nn.Linear(1, 1), step=5)
    assert read_manifest(tmp_path).step == 5
    save_checkpoint(tmp_path / "best", nn.Linear(1, 1), step=3)
    assert find_checkpoint(tmp_path) == tmp_path / "best"
    assert read_manifest(tmp_path).step == 3


def fails(number: int) -> Any:
    def write(*arguments: Any) -> str:
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize("writer", ["write_tensors", "write_text"])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")]
)
def test_a_full_or_read_only_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, number: int, words: str
) -> None:
    save_checkpoint(tmp_path / "c", nn.Linear(1, 1), step=1)
    monkeypatch.setattr(snapshot_module, writer, fails(number))
    with pytest.raises(CheckpointError, match=rf"cannot write checkpoint .*c: {words}; free some space .* untouched"):
        save_checkpoint(tmp_path / "c", nn.Linear(1, 1), step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert load_checkpoint(tmp_path / "c", nn.Linear(1, 1)).step == 1


def test_a_full_disk_while_saving_the_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recembed.schema.fitted._write", fails(errno.ENOSPC))
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*c: No space left on device"):
        save_checkpoint(tmp_path / "c", nn.Linear(1, 1), fitted=planted()[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/checkpoint"])
def test_a_file_in_the_way(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        CheckpointError, match=rf"cannot write checkpoint .*{place}: .*name a folder that can be written"
    ):
        save_checkpoint(tmp_path / place, nn.Linear(1, 1))
    assert (tmp_path / "file").read_text() == "mine"


def die_at(call: int) -> None:
    """Make the process end, as if killed, at the ``call``-th change of the file system from now on."""
    count = 0

    def counted(change: Any) -> Any:
        def changed(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                os._exit(9)
            return change(*arguments, **named)

        return changed

    for name in ("rename", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    os.fsync, os.link, os.unlink, os.rmdir = map(counted, (os.fsync, os.link, os.unlink, os.rmdir))


def killed_saves(folder: Path) -> Iterator[int]:
    """Save step 2 over step 1, killed at every single change in turn, until a save comes through."""
    for call in range(1, 200):
        shutil.rmtree(folder.parent)
        save_checkpoint(folder, nn.Linear(1, 1), fitted=planted()[0], step=1)
        child = os.fork()
        if child == 0:
            try:
                die_at(call)
                save_checkpoint(folder, nn.Linear(1, 1), fitted=planted()[0], step=2)
            finally:
                os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            return
        yield call


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_a_whole_checkpoint_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "c"
    folder.parent.mkdir()
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads; the child only writes files
        for _ in killed_saves(folder):
            found.append(load_checkpoint(folder, nn.Linear(1, 1), planted()[0]).step)
            save_checkpoint(folder, nn.Linear(1, 1), fitted=planted()[0], step=3)  # the leftovers are no hindrance
            assert sorted(path.name for path in folder.parent.iterdir()) == ["c"]
            assert load_checkpoint(folder, nn.Linear(1, 1), planted()[0]).step == 3
    assert set(found) == {1, 2}
    assert found == sorted(found)


def test_a_manifest_that_is_no_record_is_refused(copied: Path) -> None:
    for text in ("[]", "{}", json.dumps({"sha256": "0"})):
        (copied / "manifest.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"manifest\.json was changed after it was saved"):
            read_manifest(copied)
