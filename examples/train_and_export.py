"""Config → train → export → serve, all from Python, on MovieLens-100K.

    python examples/train_and_export.py [OUT]

The data are read from ``$RECEMBED_DATA/ml100k`` or the cache, else fetched. Everything is written to ``OUT`` (by default
a folder that is deleted in the end).
"""

import sys
import tempfile
from pathlib import Path

from recembed import serve
from recembed.config import RunConfig
from recembed.data import load_dataset
from recembed.run import export_run, train

config = RunConfig.parse(
    {
        "data": {"dataset": "ml100k"},
        "split": {"by": "time"},
        "embeddings": {
            "table": {"kind": "multiplexed", "ratio": 0.25},
            "row_optimizer": {"kind": "row_wise_adagrad", "learning_rate": 0.05},
        },
        "model": {"kind": "deepfm", "hidden_units": [64, 32]},
        "training": {"epochs": 2, "batch_size": 1024},
        "evaluation": {"resamples": 50},
        "tracking": {"kind": "none"},
    }
)

with tempfile.TemporaryDirectory() as temporary:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
    run = train(config, out / "run")
    metrics = run.metrics["test"]
    print(f"test AUC {metrics['auc']:.3f} over {metrics['n']:,} rows, {run.metrics['embedding_bytes']:,} bytes of rows")

    manifest = export_run(run.folder, out / "bundle", feature="item_id")
    print(f"exported {manifest.count} vectors; the bundle gave the trained model's logits on its golden rows")

    server = serve.load(out / "bundle")
    rows = load_dataset("ml100k").frame.head(3).collect()  # raw, as they come from anywhere
    print("scores", server.score(rows))
    print(server.nearest(50, k=3))
