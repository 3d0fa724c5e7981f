"""Runs over two processes: the numbers of one, checkpoints that any number of processes goes on from, faults."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from recembed.config import RunConfig
from recembed.rows.process_group import ProcessGroup
from recembed.rows.sharding_plan import ShardingPlan
from recembed.run import load_run, train
from recembed.training import MemoryTracker, read_manifest
from recembed.training.saved_tensors import SavedTensors
from tests.rows.two_processes import run as in_two
from tests.run.clicks import clicks, settings

ROOT = Path(__file__).parents[2]
METRICS = ("auc", "gauc", "logloss", "ne", "calibration", "n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    return tmp_path


def config_in(folder: Path, *, epochs: int = 2, **changes: Any) -> RunConfig:
    raw = settings(folder / "clicks.parquet", **changes)
    raw["training"] |= {"epochs": epochs, "threads": 1}
    return RunConfig.parse(raw)


def command(folder: Path, *words: str, epochs: int = 2, **changes: Any) -> subprocess.Popen[str]:
    file = folder / "clicks.yaml"
    file.write_text(config_in(folder, epochs=epochs, **changes).to_yaml())
    return subprocess.Popen(
        [sys.executable, "-m", "recembed", "train", str(file), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_same_metrics(first: dict[str, Any], second: dict[str, Any]) -> None:
    for part in ("valid", "test"):
        for name in METRICS:
            assert first[part][name] == pytest.approx(second[part][name], abs=1e-5), (part, name)


def row_wise(plan: ShardingPlan) -> str:
    tables = {name: replace_plan(entry, sharding="row_wise", ranks=()) for name, entry in plan.tables.items()}
    return ShardingPlan(world_size=plan.world_size, tables=tables).to_yaml()


def replace_plan(entry: Any, **changes: Any) -> Any:
    return entry.model_copy(update=changes)


def test_two_processes_give_the_metrics_of_one(folder: Path) -> None:
    """The whole road: a command, its plan in a file, read back after an edit, cut by rows, metrics, checkpoints."""
    alone = train(config_in(folder), folder / "one", progress=False).metrics
    first = command(folder, "--nproc", "2", "--out", str(folder / "two"), "--json")
    output, said = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert_same_metrics(json.loads(output), alone)
    assert "user         33 x 8        data_parallel  fused   0,1" in said
    assert "bytes by rank: 0: 3.7 KiB, 1: 3.7 KiB" in said
    plan = ShardingPlan.load(folder / "two" / "sharding.yaml")
    assert set(plan.tables) == {f"{name}{end}" for name in ("user", "item", "tags") for end in ("", ".linear")}
    names = {path.name for path in (folder / "two").iterdir()}
    assert {"metrics.json", "sharding.yaml", "predictions_test.parquet"} <= names
    assert "encoded" not in names
    assert load_run(folder / "two").model is not None


# ---- what follows runs in two processes that were started once


def one_road(processes: ProcessGroup, folder: str) -> dict[str, Any]:
    """Train with rows cut in two, stop in the middle, go on."""
    place = Path(folder)
    config = config_in(place, epochs=4)
    (place / "plan.yaml").write_text((place / "row_wise.yaml").read_text())
    short = config_in(place, epochs=2)
    found: dict[str, Any] = {}
    plan = str(place / "plan.yaml")
    tracker = MemoryTracker()
    said: list[str] = []
    result = train(
        config, place / "uncut", progress=False, processes=processes, plan=plan, tracker=tracker, say=said.append
    )
    found["metrics"], found["told"], found["said"] = result.metrics, len(tracker.metrics), len(said)
    train(short, place / "cut", progress=False, processes=processes, plan=plan)
    train(short, place / "elsewhere", progress=False, processes=processes, plan=plan)
    again = train(config, place / "cut", progress=False, processes=processes, plan=plan, resume=True)
    found["resumed"] = again.metrics
    found["faults"] = {
        "config": refused(processes, place, epochs=2 + processes.rank),
        "missing": refused(processes, place, plan="missing.yaml"),
        "world": refused(processes, place, plan="three.yaml"),
        "memory": refused(processes, place, embeddings={"embedding_dim": 2**36}),
    }
    return found


def refused(processes: ProcessGroup, place: Path, *, plan: str | None = None, **changes: Any) -> str:
    try:
        config = config_in(place, **changes)
        path = str(place / plan) if plan else None
        train(config, place / "refused", progress=False, processes=processes, plan=path, overwrite=True)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was wrong"


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("road")
    clicks().write_parquet(folder / "clicks.parquet")
    alone = train(config_in(folder, epochs=4), folder / "alone", progress=False).metrics
    names = [f"{name}{end}" for name in ("user", "item", "tags") for end in ("", ".linear")]
    tables = {name: {"sharding": "row_wise"} for name in names}
    write_plan(folder / "row_wise.yaml", 2, tables)
    write_plan(folder / "three.yaml", 3, tables)
    write_plan(folder / "missing.yaml", 2, {name: tables[name] for name in names[1:]})
    return folder, in_two(one_road, str(folder), wait=900), alone


def write_plan(path: Path, world_size: int, tables: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump({"world_size": world_size, "tables": tables}))


def tensors_in(folder: Path, kind: str) -> dict[str, Tensor]:
    """Return the whole tensors of a checkpoint, wherever their parts lie."""
    saved = SavedTensors(read_manifest(folder).tensor_files(folder, kind))
    found = {}
    for name, shape in saved.shapes.items():
        every = torch.arange(shape[0]) if shape else None
        found[name] = saved.read(name) if every is None or name.startswith("random") else saved.rows(name, every)
    return found


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor], far: float) -> None:
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert ((values.double() - second[name].double()).abs() <= far).all(), name


@pytest.mark.slow
def test_rows_cut_in_two_train_as_one_process(road: tuple[Path, list[Any], dict[str, Any]]) -> None:
    folder, (first, second), alone = road
    assert isinstance(first, dict), first
    assert isinstance(second, dict), second
    assert_same_metrics(first["metrics"], alone)
    assert first["told"] > 0
    assert first["said"] > 0
    assert (second["told"], second["said"]) == (0, 0)
    far = tensors_in(folder / "uncut" / "checkpoint" / "best", "weights")
    assert_close(far, tensors_in(folder / "alone" / "checkpoint" / "best", "weights"), 1e-5)


@pytest.mark.slow
def test_every_process_writes_its_own_rows(road: tuple[Path, list[Any], dict[str, Any]]) -> None:
    place = road[0] / "uncut" / "checkpoint" / "last"
    paths = read_manifest(place).tensor_files(place, "weights")
    assert [path.name for path in paths] == ["weights-00001-of-00002.safetensors", "weights-00002-of-00002.safetensors"]
    parts = [SavedTensors([path]).shapes for path in paths]
    assert "fields.0.weight" not in parts[1]
    assert {name for name in parts[1] if "store" not in name} == set()
    second = {name.split("store.")[1]: shape for name, shape in parts[1].items()}
    assert second["item.weight"] == (43, 8)  # the end of the second block: rows 22..42


@pytest.mark.slow
def test_cut_and_resumed_by_as_many_processes_equals_uncut_bit_for_bit(
    road: tuple[Path, list[Any], dict[str, Any]],
) -> None:
    folder, (first, _), _ = road
    assert first["resumed"]["test"]["logloss"] == first["metrics"]["test"]["logloss"]
    for kind in ("weights", "training"):
        uncut, cut = (tensors_in(folder / name / "checkpoint" / "last", kind) for name in ("uncut", "cut"))
        assert_close(uncut, cut, 0.0)


@pytest.mark.slow
def test_saved_by_two_processes_resumed_by_one_then_by_two(road: tuple[Path, list[Any], dict[str, Any]]) -> None:
    folder, _, alone = road
    three = train(config_in(folder, epochs=3), folder / "elsewhere", progress=False, resume=True)
    assert three.training.steps == 42
    place = folder / "elsewhere" / "checkpoint" / "last"
    assert [path.name for path in read_manifest(place).tensor_files(place, "weights")] == ["weights.safetensors"]
    said = in_two(last_epoch, str(folder))
    assert isinstance(said[0], dict), said[0]
    assert_same_metrics(said[0], alone)


def last_epoch(processes: ProcessGroup, folder: str) -> dict[str, Any]:
    place = Path(folder)
    plan = str(place / "plan.yaml")
    config = config_in(place, epochs=4)
    return train(config, place / "elsewhere", progress=False, processes=processes, plan=plan, resume=True).metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("config", "TrainingError: the processes differ in the config (rank 0: "),
        ("missing", "ConfigError: plan: table 'user' has no entry; every table of the model needs one"),
        ("world", "ConfigError: plan: world_size = 3, but 2 processes run; start 3 processes"),
        ("memory", "ConfigError: the tables take "),
    ],
)
def test_what_does_not_fit_is_refused_on_all(
    road: tuple[Path, list[Any], dict[str, Any]], fault: str, words: str
) -> None:
    for said in road[1]:
        assert said["faults"][fault].startswith(words), said["faults"][fault]


@pytest.mark.slow
def test_tables_beyond_all_memory_are_refused_with_the_bytes(road: tuple[Path, list[Any], dict[str, Any]]) -> None:
    said = road[1][0]["faults"]["memory"]
    assert "TiB with optimiser rows" in said
    assert "of memory are free" in said
    assert "start more machines" in said
