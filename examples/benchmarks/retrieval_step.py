"""Time of a training step of LightGCN and NGCF, of ranking all items for all users, and peak memory; one JSON line each.

    OMP_NUM_THREADS=1 python examples/benchmarks/retrieval_step.py --threads 1

Three layers of 64. The interactions are Gowalla's from ``$RECEMBED_DATA``, or without them drawn ones of that size. ``bpr``
is a batch of 2,048 pairs with one negative each, as in the papers' code; ``softmax`` one of 8,192 against 1,024 shared
negatives, as in ``configs/gowalla_*.yaml``. ``cpu_ms`` is the median of processor time, which other load disturbs less than
``wall_ms``; ``cpu_iqr`` holds its quartiles. Each model has a process of its own, so ``peak_rss_mb`` is that of the model,
training and ranking together.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recembed.evaluation import UserItems, evaluate_ranking
from recembed.graph import NGCF, GraphEncoder, InteractionGraph, LightGCN
from recembed.retrieval import RetrievalTraining, encoder_vectors
from recembed.retrieval.step import RetrievalStep
from recembed.rows.freed_memory import keep_freed_memory

SETTINGS: dict[str, dict[str, Any]] = {
    "bpr": {"batch_size": 2048, "loss": "bpr"},
    "softmax": {
        "batch_size": 8192,
        "loss": {"kind": "sampled_softmax", "cosine": True, "temperature": 0.1, "correction": False, "prior": 1.0},
        "sampler": {"kind": "popularity", "alpha": 1.0, "negatives": 1024, "shared": True},
    },
}


def load(scale: float) -> tuple[UserItems, UserItems, str]:
    """Return training and test interactions, nodes in the order of locality, and where they come from."""
    folder = Path(os.environ.get("RECEMBED_DATA", ".")) / "gowalla"
    if (folder / "train.parquet").is_file():
        graph = InteractionGraph.from_frame(pl.read_parquet(folder / "train.parquet")).for_locality()
        rows = pl.read_parquet(folder / "test.parquet")
        users, items, origin = graph.users_of(rows["user_id"]), graph.items_of(rows["item_id"]), "gowalla"
        known = (users >= 0) & (items >= 0)
        users, items = users[known], items[known]
    else:
        random = np.random.default_rng(0)
        sizes, edges = (int(29_858 * scale), int(40_981 * scale)), int(810_128 * scale)
        drawn = [random.zipf(1.3, 5 * edges // 4) % size for size in sizes]
        graph = InteractionGraph.of(
            drawn[0][:edges], drawn[1][:edges], num_users=sizes[0], num_items=sizes[1]
        ).for_locality()
        users, items = (random.integers(0, size, edges // 4) for size in sizes)
        origin = "drawn"
    shape = {"num_users": graph.num_users, "num_items": graph.num_items}
    return UserItems(graph.edges.rows, graph.edges.neighbours, **shape), UserItems(users, items, **shape), origin


def timed(work: Any) -> tuple[float, float]:
    """Return milliseconds of the clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor)


def step_line(encoder: GraphEncoder, train: UserItems, setting: str, repeat: int) -> dict[str, Any]:
    """Measure training steps on shuffled interactions."""
    config = RetrievalTraining.model_validate(SETTINGS[setting])
    step, users, items = RetrievalStep(encoder.train(), train, config), train.users, train.items
    size = min(config.batch_size, len(users))
    order = np.random.default_rng(0).permutation(len(users))
    batches = [np.take(order, range(at * size, (at + 1) * size), mode="wrap") for at in range(repeat + 2)]
    times = [timed(lambda: step(users[rows], items[rows], at)) for at, rows in enumerate(batches)][2:]  # noqa: B023
    low, middle, high = np.percentile([cpu for _, cpu in times], [25, 50, 75])
    return {
        "what": f"step, {setting}",
        "batch": config.batch_size,
        "wall_ms": round(float(np.median([wall for wall, _ in times])), 1),
        "cpu_ms": round(middle, 1),
        "cpu_iqr": [round(low, 1), round(high, 1)],
    }


def ranking_line(encoder: GraphEncoder, train: UserItems, test: UserItems) -> dict[str, Any]:
    """Measure the ranking of all items for every user with a test interaction."""
    vectors = encoder_vectors(encoder, train.num_users)
    wall, cpu = timed(lambda: evaluate_ranking(*vectors, test, seen=train, k=[20]))
    users = int((test.counts > 0).sum())
    return {
        "what": "ranking",
        "users": users,
        "items": train.num_items,
        "wall_ms": round(wall, 1),
        "cpu_ms": round(cpu, 1),
    }


def main() -> None:
    """Run every model and setting, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lightgcn,ngcf")
    parser.add_argument("--setting", default="bpr,softmax")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=20, help="steps")
    parser.add_argument("--scale", type=float, default=1.0, help="of drawn interactions")
    options = parser.parse_args()
    pairs = list(itertools.product(options.model.split(","), options.setting.split(",")))
    if len(pairs) > 1:
        for model, setting in pairs:
            subprocess.run([sys.executable, *sys.argv, "--model", model, "--setting", setting], check=True)
        return
    torch.set_num_threads(options.threads)
    train, test, origin = load(options.scale)
    graph = InteractionGraph.of(train.users, train.items, num_users=train.num_users, num_items=train.num_items)
    encoder = LightGCN(graph) if options.model == "lightgcn" else NGCF(graph, form="paper")
    keep_freed_memory()  # as a run does before it trains
    facts = {"model": options.model, "data": origin, "threads": torch.get_num_threads(), "torch": torch.__version__}
    for line in (step_line(encoder, train, options.setting, options.repeat), ranking_line(encoder, train, test)):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            json.dumps(facts | line | {"peak_rss_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10))}),
            flush=True,
        )


if __name__ == "__main__":
    main()
