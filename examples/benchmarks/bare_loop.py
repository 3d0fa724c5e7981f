"""DeepFM and DCNv2 on bare torch and FBGEMM, without any framework; one JSON line.

    python examples/benchmarks/bare_loop.py --model deepfm --vocab 1m --samples 200000

The least that such a step can be: the layers, widths, first-order weights, batch and rules of ``ctr_throughput.py`` (Adam for
dense parameters, row-wise Adagrad fused into FBGEMM's backward for rows), over rows shuffled from memory. Nothing checks the
loss, encodes, counts, or can be stopped. Keys of the line are those of ``ctr_throughput.py``.
"""

import argparse
import json
import os
import time
import warnings
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from criteo_shaped import IDS, NUMBERS, load
from measure import peak_mb, speeds
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

warnings.filterwarnings("ignore")  # FBGEMM warns at import
from fbgemm_gpu.split_embedding_configs import EmbOptimType  # noqa: E402
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode  # noqa: E402
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (  # noqa: E402
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)

LANES = 4  # FBGEMM's rows are multiples of four numbers


def rows_of(sizes: list[int], width: int, learning_rate: float) -> SplitTableBatchedEmbeddingBagsCodegen:
    """Return the tables of ``sizes`` as one of FBGEMM's."""
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(size, width, EmbeddingLocation.HOST, ComputeDevice.CPU) for size in sizes],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=learning_rate,
        eps=1e-8,
        pooling_mode=PoolingMode.SUM,
        device=torch.device("cpu"),
    )


class FirstOrder(nn.Module):
    """The sum of an example's weights, from rows of four numbers of which the first is half the weight.

    The gradient of that number is twice the weight's and the other three have none, so the mean of its squares over the
    row is the square of the weight's own gradient: with a quarter of the learning rate the weight moves as it would alone.

    Shapes:
        addresses: int64 ``[B, F]``, counted over all tables. Returns ``[B]``.
    """

    def __init__(self, rows: int, learning_rate: float) -> None:
        super().__init__()
        self.rows = rows_of([rows], LANES, learning_rate / 4)

    def forward(self, addresses: Tensor) -> Tensor:
        """Look up and add."""
        batch, fields = addresses.shape
        sums: Tensor = self.rows(addresses.flatten(), torch.arange(0, batch * fields + 1, fields))  # [B, 4]
        return 2 * sums[:, 0]


class Bare(nn.Module):
    """DeepFM, or DCNv2 with three full-rank cross layers beside the network."""

    def __init__(self, model: str, sizes: list[int], dim: int, hidden: list[int], row_lr: float) -> None:
        super().__init__()
        self.dim, self.fields = dim, len(sizes)
        self.rows = rows_of(sizes, dim, row_lr)
        self.rows.init_embedding_weights_uniform(-0.01, 0.01)
        self.first_row = nn.Buffer(torch.tensor([0, *np.cumsum(sizes)[:-1]]))
        width = len(sizes) * dim + len(NUMBERS)
        layers = [nn.Linear(i, o) for i, o in pairwise([width, *hidden])]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.deep = nn.Sequential(*(nn.Sequential(layer, nn.ReLU(inplace=True)) for layer in layers))
        crosses = model == "dcnv2"
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(3 if crosses else 0))
        self.output = nn.Linear(hidden[-1] + (width if crosses else 0), 1)
        self.first_order = None if crosses else FirstOrder(sum(sizes), row_lr)
        self.numbers = None if crosses else nn.Linear(len(NUMBERS), 1)

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        """Return logits ``[B]`` of ids ``[B, F]`` and numbers ``[B, W]``."""
        vectors: Tensor = self.rows(ids.T.flatten(), torch.arange(ids.numel() + 1))  # [B, F * D]
        x = torch.cat([vectors, numbers], dim=1)
        if self.first_order is None or self.numbers is None:
            crossed = x
            for layer in self.cross:
                crossed = torch.addcmul(crossed, x, layer(crossed))
            logits: Tensor = self.output(torch.cat([crossed, self.deep(x)], dim=1)).squeeze(1)
            return logits.float()
        fields = vectors.view(-1, self.fields, self.dim)
        pairs = 0.5 * (fields.sum(1).square().sum(1) - vectors.square().sum(1))  # [B]
        linear: Tensor = self.first_order(ids + self.first_row) + self.numbers(numbers).squeeze(1).float()
        deep: Tensor = self.output(self.deep(x)).squeeze(1)
        return linear + pairs + deep.float()


Arrays = tuple[Tensor, Tensor, Tensor]


def arrays(frame: pl.LazyFrame, scale: tuple[np.ndarray, np.ndarray] | None = None) -> tuple[Arrays, Any]:
    """Return ids, standardised numbers (missing: the mean) and labels, and the means and deviations."""
    rows = frame.collect()
    numbers = rows.select(NUMBERS).to_numpy().astype(np.float32)
    mean, deviation = scale or (np.nanmean(numbers, axis=0), np.nanstd(numbers, axis=0) + 1e-12)
    numbers = np.nan_to_num(np.clip((numbers - mean) / deviation, -10, 10), nan=0.0)
    ids = rows.select(IDS).to_numpy().astype(np.int64)
    labels = rows["label"].to_numpy().astype(np.float32)
    return (torch.from_numpy(ids), torch.from_numpy(numbers), torch.from_numpy(labels)), (mean, deviation)


def epoch(model: Bare, data: Arrays, options: argparse.Namespace) -> list[float]:
    """Train one epoch; return when it began and when each step had ended."""
    dense = [p for name, p in model.named_parameters() if not name.startswith(("rows.", "first_order."))]
    optimizer = torch.optim.Adam(dense, lr=options.lr, fused=True)
    bf16 = options.precision == "bf16"
    optimizer.step()  # without gradients: what torch imports at the first step is not part of the epoch
    times = [time.perf_counter()]
    ids, numbers, labels = data
    for chosen in torch.randperm(len(labels)).split(options.batch):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            logits = model(ids[chosen], numbers[chosen])
        nn.functional.binary_cross_entropy_with_logits(logits, labels[chosen]).backward()
        optimizer.step()
        times.append(time.perf_counter())
    return times


@torch.no_grad()
def test_auc(model: Bare, data: Arrays) -> float:
    """Return the AUC of rows that were not trained on."""
    ids, numbers, labels = data
    logits = [model(*parts) for parts in zip(ids.split(4096), numbers.split(4096), strict=True)]
    return round(float(roc_auc_score(labels.numpy(), torch.cat(logits).numpy())), 5)


def main() -> None:
    """Measure one run and print its line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deepfm", choices=["deepfm", "dcnv2"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--vocab", default="1m", help="rows of all tables together: 100k, 1m or 10m")
    parser.add_argument("--samples", type=int, default=1_000_000, help="training rows")
    parser.add_argument("--row-lr", type=float, default=0.007)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--mlp", type=lambda text: [int(units) for units in text.split(",")], default=[400, 400, 400])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-eval", action="store_true")
    default = os.environ.get("PEERS_DATA", Path.home() / ".cache/peers/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    log = load(options.data, options.vocab, options.samples, options.seed)
    data, scale = arrays(log.train)
    model = Bare(options.model, log.sizes, options.dim, options.mlp, options.row_lr)
    line = {"peer": "bare torch and FBGEMM", "model": options.model, "rows": len(data[2]), "vocab": options.vocab}
    line |= speeds(epoch(model, data, options), len(data[2]), options.batch)
    line |= {"peak_train_mb": peak_mb()}
    if not options.no_eval:
        line |= {"auc": test_auc(model, arrays(log.test, scale)[0])}
    line |= {"peak_rss_mb": peak_mb(), "torch": torch.__version__, "data": log.source}
    line |= {name: getattr(options, name) for name in ("batch", "mlp", "dim", "precision", "row_lr")}
    print(json.dumps(line | {"threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
