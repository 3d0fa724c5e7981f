"""A run with a graph in it, from the config to a verified bundle."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from recembed.config import RunConfig
from recembed.export import verify_bundle
from recembed.graph import GraphColumns, InteractionGraph, save_graph
from recembed.run import export_run, load_run, train


def test_trained_exported_and_served_alike(tmp_path: Path) -> None:
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
    config = RunConfig.parse(
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
                "table": {"kind": "lightgcn", "graph": str(tmp_path / "graph"), "layers": 2},
            },
            "model": {"kind": "deepfm", "hidden_units": [16]},
            "training": {"epochs": 6, "batch_size": 128},
            "tracking": {"kind": "none"},
        }
    )
    run = train(config, tmp_path / "run", progress=False)
    bundle = export_run(run.folder, tmp_path / "bundle")
    verify_bundle(tmp_path / "bundle")
    assert bundle is not None
    again = load_run(run.folder).model.state_dict()
    trained = {key: value for key, value in again.items() if key.endswith("base.weight")}
    assert len({value.data_ptr() for value in trained.values()}) == 1  # users and items share one encoder
    assert all(torch.isfinite(value).all() for value in trained.values())
