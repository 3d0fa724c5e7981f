"""Milliseconds of one product of a graph's adjacency with a matrix of node vectors, several ways; one JSON line each.

    OMP_NUM_THREADS=1 python examples/benchmarks/propagation.py --threads 1

The graph is Gowalla's training part from ``$RECEMBED_DATA``, or without it a random one of that size. ``cpu_ms`` is the
least processor time of a product (both directions), which other load disturbs less than ``wall_ms``, the least time.
scipy's product runs on one core whatever ``--threads`` says.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recembed.graph import NGCF, Adjacency, GraphEncoder, InteractionGraph, LightGCN


def load() -> InteractionGraph:
    """Return Gowalla, or a random graph of its size."""
    file = Path(os.environ.get("RECEMBED_DATA", ".")) / "gowalla" / "train.parquet"
    if file.is_file():
        return InteractionGraph.from_frame(pl.read_parquet(file))
    random = np.random.default_rng(0)
    users, items = (random.zipf(1.3, 3_000_000) % size for size in (29_858, 40_981))
    return InteractionGraph.of(users[:810_128], items[:810_128], num_users=29_858, num_items=40_981)


def measure(name: str, work: Callable[[], object], repeat: int) -> None:
    """Print the least times of ``work``."""
    work()
    walls, processors = [], []
    for _ in range(repeat):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    least = {"wall_ms": round(1e3 * min(walls), 1), "cpu_ms": round(1e3 * min(processors), 1)}
    print(json.dumps({"what": name, "threads": torch.get_num_threads()} | least), flush=True)


def products(name: str, graph: InteractionGraph, width: int, repeat: int) -> None:
    """Measure the product in this order of the nodes."""
    adjacency, vectors = Adjacency(graph), torch.randn(graph.num_nodes, width)
    parts = adjacency.pointers, adjacency.neighbours, adjacency.weights
    size = (graph.num_nodes, graph.num_nodes)
    matrix = csr_array((parts[2].numpy(), parts[1].numpy(), parts[0].numpy()), shape=size)
    measure(f"{name}: scipy", lambda: matrix @ vectors.numpy(), repeat)
    sparse = torch.sparse_csr_tensor(*parts, size=size)
    measure(f"{name}: torch CSR", lambda: sparse @ vectors, repeat)
    coo = sparse.to_sparse_coo().coalesce()
    measure(f"{name}: torch COO", lambda: torch.sparse.mm(coo, vectors), repeat)
    measure(f"{name}: embedding_bag", lambda: adjacency(vectors), repeat)
    narrow = vectors.bfloat16()

    def halved() -> Tensor:
        return torch.nn.functional.embedding_bag(parts[1], narrow, parts[0], mode="sum", include_last_offset=True)

    measure(f"{name}: embedding_bag, bfloat16, no weights", halved, repeat)


def steps(encoder: GraphEncoder, batch: int, repeat: int) -> None:
    """Measure a training step: BPR, one negative, Adam."""
    optimizer = torch.optim.Adam(encoder.train().parameters(), lr=1e-3, fused=True)
    users = torch.randint(0, encoder.num_users, (batch,))
    positives, negatives = (torch.randint(0, encoder.num_items, (batch,)) for _ in range(2))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        user, positive, negative, penalty = encoder.batch(users, positives, negatives)
        loss = torch.nn.functional.softplus((user * (negative - positive)).sum(1)).mean() + 1e-4 * penalty
        loss.backward()
        optimizer.step()

    measure(f"{type(encoder).__name__}, a step of {batch}", step, repeat)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
    by_id = load()
    near = by_id.for_locality()
    products("by id", by_id, options.width, options.repeat)
    products("by locality", near, options.width, options.repeat)
    for made in (LightGCN(near, options.width), NGCF(near, options.width)):
        steps(made, options.batch, options.repeat)
