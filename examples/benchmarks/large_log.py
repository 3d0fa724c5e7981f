"""A click log larger than memory, from Parquet files to a trained model: time and peak memory; one JSON line.

    python examples/benchmarks/large_log.py --rows 50000000 --folder /tmp/large

Rows are drawn once into ``--folder`` (39 columns, a million rows a file; 46 bytes a row), then ``recembed train``
fits, encodes into a cache on disk, and trains one epoch. ``peak_anon_mb`` is the memory of the process itself, what has
to fit the machine; ``peak_rss_mb`` adds pages of mapped files, which the system takes back when it needs them.
``model_mb``, the rows and their optimiser states, is part of both.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from criteo_shaped import IDS, NUMBERS, Law

from recembed.data.order import RowOrder, order_quality

FILE_ROWS = 1_000_000


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000_000, help="training rows")
    parser.add_argument("--ids", type=int, default=1_000_000, help="ids of all fields together")
    parser.add_argument("--folder", type=Path, required=True, help="where rows, cache and run go")
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--mlp", type=lambda text: [int(units) for units in text.split(",")], default=[64, 32])
    parser.add_argument("--dim", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def draw_files(folder: Path, rows: int, ids: int, seed: int) -> None:
    """Write what is missing of the files, each drawn by its own number."""
    folder.mkdir(parents=True, exist_ok=True)
    law = Law(ids, seed)
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        path = folder / f"part-{number:04d}.parquet"
        if not path.exists():
            frame = law.rows(min(FILE_ROWS, rows - start), np.random.default_rng([seed, number]))
            frame.write_parquet(path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the run's config, as a user would write it."""
    names = [{"name": name} for name in IDS] + [{"name": name, "kind": "numeric"} for name in NUMBERS]
    return {
        "name": "large-log",
        "data": {"path": str(options.folder / "rows" / "*.parquet"), "cache": str(options.folder / "cache")},
        "schema": {"features": names, "labels": [{"name": "label"}]},
        "split": {"by": "random", "valid": 0.01, "test": 0.01},
        "embeddings": {"embedding_dim": options.dim},
        "model": {"kind": "deepfm", "hidden_units": options.mlp, "dropout": 0.0},
        "training": {"epochs": 1, "batch_size": options.batch, "threads": options.threads},
        "evaluation": {"resamples": 0},
        "tracking": {"kind": "none"},
    }


def peaks(process: "subprocess.Popen[bytes]") -> dict[str, int]:
    """Wait for a process; return the greatest memory it had, in MB, by kind."""
    most = {"VmRSS": 0, "RssAnon": 0}
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        for line in lines:
            name, _, value = line.partition(":")
            if name in most:
                most[name] = max(most[name], int(value.split()[0]) // 1024)
        time.sleep(0.1)
    return {"peak_rss_mb": most["VmRSS"], "peak_anon_mb": most["RssAnon"]}


def main() -> None:
    """Draw, train, report."""
    options = arguments()
    draw_files(options.folder / "rows", options.rows, options.ids, options.seed)
    run, config = options.folder / "run", options.folder / "config.yaml"
    config.write_text(json.dumps(settings(options)))  # JSON is YAML
    started = time.perf_counter()
    command = [sys.executable, "-m", "recembed", "train", str(config), "--out", str(run), "--overwrite"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    memory = peaks(process)
    if process.wait():
        raise SystemExit(process.returncode)
    seconds = time.perf_counter() - started
    metrics = json.loads((run / "metrics.json").read_text())
    order = RowOrder(int(options.rows * 0.98), shuffle=True, seed=0, window=2**20)
    shuffled = order_quality(np.concatenate(list(order.batches(0, options.batch))))
    line = {"rows": options.rows, "columns": len(IDS) + len(NUMBERS), "seconds": round(seconds, 1), **memory}
    line |= {"file_mb": sum(path.stat().st_size for path in (options.folder / "rows").iterdir()) // 2**20}
    line |= {"model_mb": (metrics["embedding_bytes"] + metrics["optimizer_bytes"]) // 2**20}
    line |= {"samples_per_s": round(metrics["samples_per_second"]), "train_s": round(metrics["training_seconds"], 1)}
    line |= {"auc": round(metrics["test"]["auc"], 5), "order": {n: round(v, 5) for n, v in shuffled.items()}}
    print(json.dumps(line | {"cores": os.cpu_count()}), flush=True)


if __name__ == "__main__":
    main()
