"""A run with a graph in it, from the config to a verified bundle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recembed.config import RunConfig
from recembed.export import verify_bundle
from recembed.graph import GraphColumns, InteractionGraph, save_graph
from recembed.run import export_run, load_run, train


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "table", [{"kind": "lightgcn"}, {"kind": "ngcf", "message_dropout": 0}], ids=lambda t: t["kind"]
)
def test_two_processes_give_the_metrics_of_one(tmp_path: Path, table: dict[str, object]) -> None:
    """Each process has the vectors of all nodes; their gradients are summed as those of all dense parameters."""
    config = config_in(tmp_path, **table)
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
    both = json.loads(done.stdout)
    for part in ("valid", "test"):
        for name in ("auc", "logloss"):
            assert both[part][name] == pytest.approx(alone[part][name], abs=1e-4), (part, name)
