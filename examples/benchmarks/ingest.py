"""Reading, fitting, encoding and serving rows to training: CPU seconds, rows per second and peak memory.

    python examples/benchmarks/ingest.py csv parquet cache polars order        # each line is one JSON object
    python examples/benchmarks/ingest.py stream --rows 10000000

``csv``, ``parquet``: a file of 13 numbers, 26 ids and a label to fitted vocabularies and arrays, read once (``--data``, see
``criteo_shaped.py``; the CSV lies beside the Parquet file). ``polars``: its yardsticks, the same CSV scanned and nothing
encoded, and the encoded Parquet read into two matrices. ``cache``: one shuffled epoch of batches from rows encoded to files,
with and without prefetch. ``order``: how far the order of training is from that of the file. ``stream``: ``--rows`` drawn
rows in Parquet files, fitted, encoded to files and read for one epoch, never all in memory.

The peers' figures come from their own readers on the same CSV: FuxiCTR's ``FeatureProcessor`` with ``build_dataset``, and
RecBole's ``Dataset``. Seconds are processor seconds of all threads (``cpu_s``) and of the wall (``wall_s``): on a machine
that does other work, only the first can be compared. Each task runs in a process of its own, so ``peak_mb`` is its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from criteo_shaped import IDS, NUMBERS

from recembed.data import Loader, encode, encode_to, fit, fit_and_keep, scan
from recembed.data.order import RowOrder, order_quality
from recembed.schema.feature import Feature, Label, Schema

SCHEMA = Schema(
    features=(*(Feature(name=name) for name in IDS), *(Feature(name=name, kind="numeric") for name in NUMBERS)),
    labels=(Label(),),
)
CHUNK = 500_000


def peak_mb() -> int:
    """Return the greatest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


@contextmanager
def measured(task: str, rows: int) -> Iterator[dict[str, Any]]:
    """Print one line about the block; what it puts into the dictionary is printed with it."""
    more: dict[str, Any] = {}
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    yield more
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    line = {"task": task, "rows": rows, "cpu_s": round(cpu, 2), "wall_s": round(wall, 2)}
    line |= {"rows_per_cpu_s": round(rows / max(cpu, 1e-9)), "rows_per_s": round(rows / wall), "peak_mb": peak_mb()}
    print(json.dumps(line | more), flush=True)


def ingest(path: Path, task: str) -> None:
    """File → vocabularies → arrays, the file read once."""
    rows = int(scan(path).select(pl.len()).collect().item())
    with measured(task, rows) as more:
        fitted, kept = fit_and_keep(scan(path), SCHEMA)
        data = kept.encode()
        more["ids"] = sum(vocabulary.num_embeddings for vocabulary in fitted.vocabularies.values())
        more["shape"] = list(data.ids.shape)


def polars(folder: Path) -> None:
    """Measure what polars does alone: the limits of the two tasks."""
    rows = int(pl.scan_parquet(folder / "train.parquet").select(pl.len()).collect().item())
    if (folder / "train.csv").is_file():
        with measured("polars: scan_csv, nothing encoded", rows):
            pl.scan_csv(folder / "train.csv").collect()
    for _ in range(3):
        with measured("polars: encoded parquet to two matrices", rows):
            frame = pl.read_parquet(folder / "train.parquet")
            frame.select(IDS).to_numpy(), frame.select(NUMBERS).to_numpy()


def cache(folder: Path, batch: int) -> None:
    """Read one epoch of shuffled batches from the encoded cache, prefetch off and on."""
    frame = pl.scan_parquet(folder / "train.parquet")
    with tempfile.TemporaryDirectory() as place:
        data = encode_to(frame, fit(frame, SCHEMA), Path(place) / "train")
        for prefetch in (0, 2, 0, 2, 0, 2):
            epoch(data, batch, prefetch)


def epoch(data: Any, batch: int, prefetch: int) -> None:
    """Read one epoch."""
    loader = Loader(data, batch, shuffle=True, seed=1, prefetch=prefetch)
    with measured(f"encoded cache to shuffled batches, prefetch {prefetch}", len(data)):
        for _ in loader:
            pass


def order(rows: int) -> None:
    """Print how well the windowed order shuffles, for windows of several sizes."""
    for window in (1 << 16, 1 << 18, 1 << 20, rows):
        places = np.concatenate(list(RowOrder(rows, shuffle=True, seed=1, window=window).batches(0, 4096)))
        print(json.dumps({"task": "order", "rows": rows, "window": window, **order_quality(places)}), flush=True)


def draw(folder: Path, rows: int, ids: int) -> None:
    """Write ``rows`` rows in Parquet files of half a million, over about ``ids`` ids a field at most."""
    sizes = np.geomspace(10, ids, len(IDS))
    for low in range(0, rows, CHUNK):
        random, count = np.random.default_rng([7, low]), min(CHUNK, rows - low)
        columns: dict[str, np.ndarray] = {"label": (random.random(count) < 0.2).astype(np.int8)}
        for name in NUMBERS:
            columns[name] = np.floor(random.lognormal(1.5, 1.2, count)).astype(np.float32)
        for name, size in zip(IDS, sizes, strict=True):
            columns[name] = np.exp(random.random(count) * np.log(size)).astype(np.int32)  # p(id) ~ 1 / id
        pl.DataFrame(columns).write_parquet(folder / f"part-{low // CHUNK:04d}.parquet")


def stream(rows: int, ids: int, batch: int) -> None:
    """Fit, encode to files and read one epoch of data that are never all in memory."""
    with tempfile.TemporaryDirectory() as place:
        raw, encoded = Path(place) / "raw", Path(place) / "encoded"
        raw.mkdir()
        subprocess.run(
            [sys.executable, __file__, "draw", "--rows", str(rows), "--ids", str(ids), "--into", raw], check=True
        )
        with measured("stream: fit", rows) as more:
            fitted = fit(scan(raw), SCHEMA)
            more["ids"] = sum(vocabulary.num_embeddings for vocabulary in fitted.vocabularies.values())
        with measured("stream: encode_to", rows):
            data = encode_to(scan(raw), fitted, encoded)
        epoch(data, batch, 2)
        del data


def known(folder: Path) -> None:
    """Encode rows under a mapping that is there already, as validation and prediction do."""
    frame = pl.scan_parquet(folder / "train.parquet")
    fitted = fit(frame, SCHEMA)
    with measured("parquet to arrays, mapping known", fitted.rows):
        encode(frame, fitted)


def main() -> None:
    """Run every task in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "task", nargs="+", choices=["csv", "parquet", "known", "polars", "cache", "order", "stream", "draw"]
    )
    default = os.environ.get("PEERS_DATA", Path.home() / ".cache/peers/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--vocab", default="1m", choices=["1m", "10m"])
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of order and stream")
    parser.add_argument("--ids", type=int, default=1_000_000, help="ids of the greatest field of stream")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--into", type=Path, help="folder of the rows that draw writes")
    options = parser.parse_args()
    if len(options.task) > 1:
        given = [word for word in sys.argv[1:] if word not in options.task]
        for task in options.task:
            subprocess.run([sys.executable, __file__, task, *given], check=True)
        return
    folder = options.data / f"v{options.vocab}"
    tasks = {
        "csv": lambda: ingest(folder / "train.csv", "csv to arrays"),
        "parquet": lambda: ingest(folder / "train.parquet", "parquet to arrays"),
        "known": lambda: known(folder),
        "polars": lambda: polars(folder),
        "cache": lambda: cache(folder, options.batch),
        "order": lambda: order(options.rows),
        "stream": lambda: stream(options.rows, options.ids, options.batch),
        "draw": lambda: draw(options.into, options.rows, options.ids),
    }
    tasks[options.task[0]]()


if __name__ == "__main__":
    main()
