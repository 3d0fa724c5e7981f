"""Cold-start films: what title, genres and year are worth where a film has no ratings yet (MovieLens-1M).

    python examples/cold_start_films.py [--rows 100000] [--text]

A fifth of the films is kept out of training altogether. Three runs (id only, content only, both) are measured on known
films and on those. ``--text`` also encodes titles with all-MiniLM-L6-v2 (needs 'recembed[text]'). The data are read from
``$RECEMBED_DATA/ml1m``; everything is written to a folder that is deleted in the end.
"""

import argparse
import os
import tempfile
from pathlib import Path

import polars as pl

from recembed.config import RunConfig
from recembed.run import evaluate_run, train

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--rows", type=int, default=100_000)
arguments.add_argument("--epochs", type=int, default=4)
arguments.add_argument("--text", action="store_true", help="Encode titles too.")
arguments.add_argument("--fuse", default="gated", help="sum, concat, gated or attention.")
given = arguments.parse_args()

data = Path(os.environ["RECEMBED_DATA"]) / "ml1m"
items = str(data / "items.parquet")
ratings = (
    pl.read_parquet(data / "ratings.parquet", columns=["user_id", "item_id", "rating"])
    .sample(given.rows, seed=1, shuffle=True)
    .with_columns(
        liked=(pl.col("rating") >= 4).cast(pl.Int8),
        cold=pl.col("item_id").hash(seed=5) % 5 == 0,  # a fifth of the films
        split=pl.Series(["train"] * 8 + ["valid", "test"]).gather(pl.int_range(given.rows) % 10),
    )
    .drop("rating")
)

content = {"content": items, "id": "item_id", "attributes": ["genres", "year", "director"], "fuse": given.fuse}
if given.text:
    content["text"] = "title"
ENCODERS = {
    "id only": None,
    "content only": content | {"with_id": False},
    "id + content": content | {"with_id": True, "id_dropout": 0.2},
}

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    ratings.filter(~pl.col("cold")).drop("cold").write_parquet(folder / "known.parquet")
    ratings.filter(pl.col("cold")).drop("cold", "split").write_parquet(folder / "cold.parquet")
    print(f"{'':14} known films  new films   (AUC)")
    for title, encoder in ENCODERS.items():
        config = RunConfig.parse(
            {
                "data": {"path": str(folder / "known.parquet")},
                "schema": {
                    "features": [{"name": "user_id", "role": "user"}, {"name": "item_id", "role": "item"}],
                    "labels": [{"name": "liked"}],
                },
                "split": {"by": "column", "column": "split"},
                "embeddings": {
                    "embedding_dim": 16,
                    "row_optimizer": {"kind": "row_wise_adagrad", "learning_rate": 0.05},
                    "features": {"item_id": {"encoder": encoder}} if encoder else {},
                },
                "model": {"kind": "deepfm", "hidden_units": [64, 32]},
                "training": {
                    "epochs": given.epochs,
                    "batch_size": 1024,
                    "early_stopping": {"metric": "auc", "patience": 1},
                },
                "evaluation": {"resamples": 200},
                "tracking": {"kind": "none"},
            }
        )
        run = train(config, folder / title.replace(" ", "_"), progress=False)
        known, cold = run.metrics["test"], evaluate_run(run.folder, data=str(folder / "cold.parquet"))["metrics"]
        shown = [
            f"{m['auc']:.4f} ({m['auc_low']:.3f}-{m['auc_high']:.3f})" if "auc_low" in m else f"{m['auc']:.4f}"
            for m in (known, cold)
        ]
        print(f"{title:14} {shown[0]}  {shown[1]}", flush=True)
