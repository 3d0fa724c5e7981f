"""A run with a graph in it, from the config to a verified bundle."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recembed.config import RunConfig, load_config
from recembed.export import verify_bundle
from recembed.graph import GraphColumns, InteractionGraph, save_graph
from recembed.rows.process_group import ProcessGroup
from recembed.run import export_run, load_run, train
from recembed.training import read_manifest
from recembed.training.saved_tensors import SavedTensors
from tests.rows.two_processes import run as in_two


def config_in(tmp_path: Path, **table: object) -> RunConfig:
    """Clicks of 30 users on 20 items, and the graph of those before the test, on disk."""
    random = np.random.default_rng(0)
    users, items = random.integers(0, 30, 1500), random.integers(0, 20, 1500)
    rows = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": items,
            "day": np.arange(1500),
            "split": ["train"] * 1200 + ["valid"] * 150 + ["test"] * 150,
            "click": (random.random(1500) < np.where(users % 2 == items % 2, 0.8, 0.2)).astype(np.int8),
        }
    )
    rows.drop("day").write_parquet(tmp_path / "rows.parquet")
    clicks = rows.filter(pl.col("click") == 1)
    save_graph(InteractionGraph.from_frame(clicks, GraphColumns(time="day", until=1200)), tmp_path / "graph")
    return RunConfig.parse(
        {
            "data": {"path": str(tmp_path / "rows.parquet")},
            "schema": {
                "features": [{"name": "user_id", "role": "user"}, {"name": "item_id", "role": "item"}],
                "labels": [{"name": "click"}],
            },
            "split": {"by": "column", "column": "split"},
            "embeddings": {
                "embedding_dim": 8,
                "row_store": "torch",
                "table": {"kind": "lightgcn", "graph": str(tmp_path / "graph"), "layers": 2, **table},
            },
            "model": {"kind": "deepfm", "hidden_units": [16]},
            "training": {"epochs": 6, "batch_size": 128, "threads": 1},
            "tracking": {"kind": "none"},
        }
    )


def test_trained_exported_and_served_alike(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    run = train(config, tmp_path / "run", progress=False)
    bundle = export_run(run.folder, tmp_path / "bundle")
    verify_bundle(tmp_path / "bundle")
    assert bundle is not None
    again = load_run(run.folder).model.state_dict()
    trained = {key: value for key, value in again.items() if key.endswith("base.weight")}
    assert len({value.data_ptr() for value in trained.values()}) == 1  # users and items share one encoder
    assert all(torch.isfinite(value).all() for value in trained.values())


def epochs(config: RunConfig, count: int) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": count})})


def cut_and_uncut(processes: ProcessGroup, folder: str) -> dict[str, float]:
    config, place = load_config(Path(folder) / "config.yaml"), Path(folder)
    alike: dict[str, Any] = {"progress": False, "processes": processes}
    train(epochs(config, 4), place / "uncut", **alike)
    for name in ("cut", "elsewhere"):
        train(epochs(config, 2), place / name, **alike)
    return train(epochs(config, 4), place / "cut", **alike, resume=True).metrics["test"]


def last_epoch(processes: ProcessGroup, folder: str) -> dict[str, float]:
    config, out = load_config(Path(folder) / "config.yaml"), Path(folder) / "elsewhere"
    return train(epochs(config, 4), out, progress=False, processes=processes, resume=True).metrics["test"]


def tensors_in(folder: Path, kind: str) -> dict[str, Tensor]:
    saved = SavedTensors(read_manifest(folder).tensor_files(folder, kind))
    return {name: saved.read(name) for name in saved.shapes}


@pytest.mark.slow
def test_checkpoints_know_the_nodes_whole_whoever_goes_on(tmp_path: Path) -> None:
    """Two processes go on from two bit for bit; one goes on from two, and two from one, to what one comes to."""
    (tmp_path / "config.yaml").write_text(config_in(tmp_path).to_yaml())
    config = load_config(tmp_path / "config.yaml")
    alone = train(epochs(config, 4), tmp_path / "alone", progress=False).metrics["test"]
    said = in_two(cut_and_uncut, str(tmp_path), wait=900)
    assert isinstance(said[0], dict), said
    for kind in ("weights", "training"):
        one, cut, uncut = (
            tensors_in(tmp_path / name / "checkpoint" / "last", kind) for name in ("alone", "cut", "uncut")
        )
        own = {name for name in uncut if not name.startswith("random/rank-1")}
        assert {name: uncut[name].shape for name in own} == {name: values.shape for name, values in one.items()}
        assert [name for name, values in uncut.items() if not torch.equal(values, cut[name])] == []
    moments = tmp_path / "cut" / "checkpoint" / "last" / "training-00002-of-00002.safetensors"
    halves = [shape for name, shape in SavedTensors([moments]).shapes.items() if name.endswith("base.weight")]
    assert halves == [(56, 8)] * 2  # where the second half ends
    train(epochs(config, 3), tmp_path / "elsewhere", progress=False, resume=True)
    again = in_two(last_epoch, str(tmp_path), wait=900)
    assert isinstance(again[0], dict), again
    for found in (said[0], again[0]):
        assert found["logloss"] == pytest.approx(alone["logloss"], abs=1e-5)
        assert found["auc"] == pytest.approx(alone["auc"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "vectors"),
    [
        ({"kind": "lightgcn"}, "their vectors lie there too"),
        ({"kind": "ngcf", "message_dropout": 0}, "their vectors lie there too"),
        ({"base": {"kind": "hashed", "ratio": 0.5}}, "their vectors are of a method that each process holds whole"),
    ],
    ids=["lightgcn", "ngcf", "over hashed"],
)
def test_two_processes_give_the_metrics_of_one(tmp_path: Path, table: dict[str, object], vectors: str) -> None:
    """Each process holds and propagates half of the nodes; the gradients are clipped by the norm over both halves."""
    config = config_in(tmp_path, **table)
    config = config.model_copy(update={"training": config.training.model_copy(update={"clip_norm": 0.01})})
    alone = train(config, tmp_path / "one", progress=False).metrics
    (tmp_path / "clicks.yaml").write_text(config.to_yaml())
    words = ["train", str(tmp_path / "clicks.yaml"), "--nproc", "2", "--out", str(tmp_path / "two"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "recembed", *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert f" of 56 nodes; {vectors}" in done.stderr
    both = json.loads(done.stdout)
    for name in ("embedding_bytes", "parameters"):
        assert both[name] == alone[name], name
    for part in ("valid", "test"):
        for name in ("auc", "logloss"):
            assert both[part][name] == pytest.approx(alone[part][name], abs=1e-4), (part, name)
