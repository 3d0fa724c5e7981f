"""What a graph of the past is worth in a CTR model: DeepFM on MovieLens-100K with a split by time.

    python examples/graph_in_a_model.py [--epochs 8] [--seeds 1]

The graph holds films that users liked before the split, nothing later (checked). Both runs see the same rows; one gives
users and films vectors of their own, the other propagates them over the graph. The data are read from
``$RECEMBED_DATA/ml100k``; everything is written to a folder that is deleted in the end.
"""

import argparse
import os
import tempfile
from pathlib import Path

import polars as pl

from recembed.config import RunConfig
from recembed.graph import GraphColumns, InteractionGraph, load_graph, save_graph
from recembed.run import train

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--epochs", type=int, default=8)
arguments.add_argument("--seeds", type=int, default=1)
arguments.add_argument("--layers", type=int, default=2)
given = arguments.parse_args()

data = Path(os.environ["RECEMBED_DATA"]) / "ml100k"
ratings = pl.read_parquet(data / "ratings.parquet").sort("timestamp").with_row_index()
ends = [int(share * len(ratings)) for share in (0.8, 0.9)]
ratings = ratings.with_columns(
    liked=(pl.col("rating") >= 4).cast(pl.Int8),
    split=pl.when(pl.col("index") < ends[0])
    .then(pl.lit("train"))
    .otherwise(pl.when(pl.col("index") < ends[1]).then(pl.lit("valid")).otherwise(pl.lit("test"))),
)
start = ratings["timestamp"][ends[0]]

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    ratings.select("user_id", "item_id", "liked", "split").write_parquet(folder / "ratings.parquet")
    liked = ratings.filter(pl.col("liked") == 1)
    columns = GraphColumns(time="timestamp", until=start)
    save_graph(InteractionGraph.from_frame(liked, columns), folder / "graph")

    graph = load_graph(folder / "graph")
    past = liked.filter(pl.col("timestamp") < start).select("user_id", "item_id").unique()
    assert graph.num_edges == len(past), "an edge of the graph comes from the future"
    print(f"graph: {graph.num_users} users, {graph.num_items} films, {graph.num_edges} likes, all before the split")

    tables = {
        "full": {"kind": "full"},
        "lightgcn": {"kind": "lightgcn", "graph": str(folder / "graph"), "layers": given.layers},
    }
    for title, table in tables.items():
        for seed in range(given.seeds):
            config = RunConfig.parse(
                {
                    "data": {"path": str(folder / "ratings.parquet")},
                    "schema": {
                        "features": [{"name": "user_id", "role": "user"}, {"name": "item_id", "role": "item"}],
                        "labels": [{"name": "liked"}],
                    },
                    "split": {"by": "column", "column": "split"},
                    "embeddings": {
                        "embedding_dim": 16,
                        "table": table,
                        "row_optimizer": {"kind": "row_wise_adagrad", "learning_rate": 0.05},
                    },
                    "model": {"kind": "deepfm", "hidden_units": [64, 32]},
                    "training": {
                        "epochs": given.epochs,
                        "batch_size": 1024,
                        "seed": seed,
                        "early_stopping": {"metric": "auc", "patience": 2},
                    },
                    "evaluation": {"resamples": 200},
                    "tracking": {"kind": "none"},
                }
            )
            run = train(config, folder / f"{title}_{seed}", progress=False)
            found = run.metrics["test"]
            print(f"{title:9} seed {seed}: test AUC {found['auc']:.4f}, log loss {found['logloss']:.4f}", flush=True)
