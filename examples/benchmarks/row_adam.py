"""Adam on looked-up rows beside torch's SparseAdam: rows per second of look-up, backward and update; JSON lines.

    python examples/benchmarks/row_adam.py --ids 1000000

A step looks up one row for each of 26 fields x 4,096 examples, of ids drawn as in ``criteo_shaped.py``. Both sides take the same
ids and gradients in turn. ``largest_difference`` is between the rows of both after the first step, where the two rules are
the same but for the place of ``eps``, here next to nothing (later, recembed corrects by the steps of the row, SparseAdam by
those of the run).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from criteo_shaped import IDS, Law
from measure import peak_mb
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.rows import Adam, PlainStore, RowTable

EPS = 1e-15


def addresses(ids: int, batch: int, steps: int) -> list[Tensor]:
    """Draw the rows that each step looks up, int64 ``[26 * batch]``."""
    law = Law(ids, seed=7)
    first = np.concatenate([[0], np.cumsum(law.sizes)[:-1]])
    random = np.random.default_rng(7)
    drawn = [law.rows(batch, random).select(IDS).to_numpy().astype(np.int64) + first for _ in range(steps)]
    return [torch.from_numpy(rows.ravel()) for rows in drawn]


def ours(rows: Tensor) -> tuple[Callable[[Tensor, Tensor], None], Callable[[], Tensor]]:
    """Return a step of recembed on a copy of ``rows``, and a view of its rows."""
    store = PlainStore([RowTable("id", *rows.shape)], optimizer=Adam(learning_rate=1e-3, eps=EPS))
    store.rows("id").copy_(rows)

    def step(ids: Tensor, gradient: Tensor) -> None:
        store(ids, rows.shape[1]).backward(gradient)

    return step, lambda: store.rows("id")


def sparse_adam(rows: Tensor) -> tuple[Callable[[Tensor, Tensor], None], Callable[[], Tensor]]:
    """Return a step of torch's own on a copy of ``rows``, and a view of its rows."""
    weight = nn.Parameter(rows.clone())
    optimizer = torch.optim.SparseAdam([weight], lr=1e-3, eps=EPS)

    def step(ids: Tensor, gradient: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.embedding_bag(ids, weight, torch.arange(len(ids)), mode="sum", sparse=True).backward(gradient)
        optimizer.step()

    return step, lambda: weight.detach()


def main() -> None:
    """Measure both sides, step by step in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ids", type=int, default=1_000_000, help="of all fields together")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12, help="the first two are not counted")
    options = parser.parse_args()
    torch.manual_seed(7)
    drawn = addresses(options.ids, options.batch, options.steps)
    rows = torch.randn(int(max(ids.max() for ids in drawn)) + 1, options.dim) * 0.01
    gradient = torch.randn(len(drawn[0]), options.dim) * 0.01
    sides = {"recembed, Adam on rows": ours(rows), "torch.optim.SparseAdam": sparse_adam(rows)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    difference = 0.0
    for number, ids in enumerate(drawn):
        for name, (step, _) in sides.items():
            started = time.perf_counter()
            step(ids, gradient)
            seconds[name].append(time.perf_counter() - started)
        if number == 0:
            mine, theirs = (view() for _, view in sides.values())
            difference = float((mine - theirs).abs().max())
    for name, times in seconds.items():
        median = statistics.median(times[2:] or times)
        line = {"what": name, "rows": len(gradient), "rows_per_s": round(len(gradient) / median), "dim": options.dim}
        line |= {"ms": round(1e3 * median, 2), "table_rows": len(rows), "largest_difference": difference}
        print(json.dumps(line | {"threads": torch.get_num_threads(), "peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main()
