"""A whole run with content: trained, read back, exported with its cold items, and served."""

from pathlib import Path

import numpy as np
import polars as pl

from recembed.config import RunConfig
from recembed.export import verify_bundle
from recembed.run import export_run, predict_run, train
from recembed.serve import load
from tests.items import shop


def test_a_run_with_content(tmp_path: Path) -> None:
    shop.rows().with_columns(item=pl.col("item") % 38).write_parquet(tmp_path / "clicks.parquet")
    config = RunConfig.parse(
        {
            "data": {"path": str(tmp_path / "clicks.parquet")},
            "schema": shop.SCHEMA.model_dump(mode="json", exclude_defaults=True),
            "split": {"by": "random", "valid": 0.15, "test": 0.15},
            "embeddings": {"embedding_dim": 4, "features": {"item": {"encoder": shop.content(tmp_path)}}},
            "model": {"kind": "dcnv2", "hidden_units": [8]},
            "training": {"epochs": 2, "batch_size": 64},
            "evaluation": {"slices": ["item"], "resamples": 10},
            "tracking": {"kind": "none"},
        }
    )
    assert RunConfig.parse(config.to_dict()) == config
    train(config, tmp_path / "run")
    cold = pl.DataFrame({"user": [1, 1, 1], "item": [45, 46, 777], "history": [[45], [46], [777]], "click": [0, 0, 0]})
    cold.write_parquet(tmp_path / "cold.parquet")
    predict_run(tmp_path / "run", str(tmp_path / "cold.parquet"), tmp_path / "scores.parquet")
    scores = pl.read_parquet(tmp_path / "scores.parquet")["logit"].to_list()
    assert len(set(scores)) == 3  # two new items are two items, and neither is an unknown one
    export_run(tmp_path / "run", tmp_path / "bundle")
    verify_bundle(tmp_path / "bundle")
    vectors = pl.read_parquet(tmp_path / "bundle" / "vectors.parquet")
    assert vectors["provenance"].unique().to_list() == ["trained"]
    new = pl.read_parquet(tmp_path / "bundle" / "content_vectors.parquet")
    assert set(new["item"]) == set(range(50)) - set(vectors["item"]) and new["provenance"].unique().to_list() == [
        "content"
    ]
    served = load(tmp_path / "bundle").score(cold)
    assert np.allclose(served, 1 / (1 + np.exp(-np.array(scores))), atol=1e-5)
