"""Training speed, peak memory and AUC of CTR models on Criteo-shaped data; one JSON line per run.

    python examples/benchmarks/ctr_throughput.py --model deepfm,dcnv2 --table full,multiplexed --repeat 3

Rows come from ``--data`` (or ``$PEERS_DATA``), see ``criteo_shaped.py``; without them a smaller set is drawn. Batch 4,096,
width 16, MLP 400-400-400, Adam for dense parameters, row-wise Adagrad for rows. ``samples_per_s`` is a whole epoch from
rows in memory to the last optimiser step, the loader included; ``win_median`` the median over windows of 20 steps, which
passing load disturbs less. Each run has a process of its own, so ``peak_rss_mb`` is that of the run.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
import torch
from criteo_shaped import IDS, NUMBERS, ClickLog, load
from measure import peak_mb, speeds

from recembed.batch import Batch
from recembed.data import EncodedData, Loader, encode, fit
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.evaluation import auc, predict_logits
from recembed.models import DLRM, CTRModel, DCNv2, DeepFM
from recembed.rows import RowStore
from recembed.schema.feature import Feature, Label, Schema
from recembed.schema.fitted import FittedSchema
from recembed.training import Trainer, TrainingConfig

LISTS = ("model", "table", "precision", "vocab")


def arguments() -> argparse.Namespace:
    """Read the command line; the first four options take lists and every combination is run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deepfm,dcnv2,dlrm", help="of deepfm, dcnv2, dlrm")
    parser.add_argument("--table", default="full", help="of full, hashed, multiplexed")
    parser.add_argument("--precision", default="float32", help="of float32, bf16")
    parser.add_argument("--vocab", default="1m", help="of 100k, 1m, 10m: rows of all tables together")
    parser.add_argument("--samples", type=int, default=1_000_000, help="training rows")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each combination")
    parser.add_argument("--row-store", default="auto", choices=["auto", "torchrec", "torch"])
    parser.add_argument("--fitted-only", action="store_true", help="rows for ids of the training rows only")
    parser.add_argument("--row-lr", type=float, default=0.007, help="learning rate of the rows")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of the dense parameters")
    parser.add_argument("--mlp", type=lambda text: [int(units) for units in text.split(",")], default=[400, 400, 400])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-eval", action="store_true")
    default = os.environ.get("PEERS_DATA", Path.home() / ".cache/peers/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    return parser.parse_args()


class Clock:
    """The batches of an epoch, and the time at which each was asked for: when the step before it had ended."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.times = loader, [0.0]
        self.set_epoch, self.state, self.resume = loader.set_epoch, loader.state, loader.resume

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        self.times = [time.perf_counter()]
        for batch in self.loader:
            yield batch
            self.times.append(time.perf_counter())


def fit_schema(log: ClickLog, *, every_id: bool) -> FittedSchema:
    """Fit; with ``every_id`` each table also has rows for the ids that the training rows lack, as the peers' have."""
    features = [*(Feature(name=n) for n in IDS), *(Feature(name=n, kind="numeric") for n in NUMBERS)]
    fitted = fit(log.train, Schema(features=tuple(features), labels=(Label(),)))
    if not every_id:
        return fitted
    vocabularies = {}
    for name, size in zip(IDS, log.sizes, strict=True):
        ids = np.arange(size, dtype=np.int64)
        vocabularies[name] = fitted.vocabularies[name].extend(pl.Series(ids), ids, np.zeros(size, np.int64))
    return replace(fitted, vocabularies=vocabularies)


def build(options: argparse.Namespace, fitted: FittedSchema) -> CTRModel:
    """Build the model; numbers enter it as dense columns, beside 26 fields."""
    config = {
        "embedding_dim": options.dim,
        "table": options.table,
        "init": {"law": "uniform", "scale": 0.01},
        "row_store": options.row_store,
        "row_optimizer": {"kind": "row_wise_adagrad", "learning_rate": options.row_lr},
    }
    embedding = FeatureEmbedding(
        fitted, EmbeddingConfig.model_validate(config), linear=options.model == "deepfm", seed=options.seed
    )
    if options.model == "deepfm":
        return DeepFM(embedding, hidden_units=options.mlp)
    if options.model == "dcnv2":
        return DCNv2(embedding, hidden_units=options.mlp)
    return DLRM(embedding, bottom_units=[256, 128], top_units=options.mlp)


def run(options: argparse.Namespace) -> None:
    """Measure one combination and print its line."""
    torch.manual_seed(options.seed)
    log = load(options.data, options.vocab, options.samples, options.seed)
    started = time.perf_counter()
    fitted = fit_schema(log, every_id=not options.fitted_only)
    model = build(options, fitted)
    embedding = next(module for module in model.modules() if isinstance(module, FeatureEmbedding))
    train = encode(log.train, fitted, key_features=embedding.key_features)
    prepared = time.perf_counter() - started
    config = TrainingConfig(
        batch_size=options.batch,
        dense_optimizer={"kind": "adam", "learning_rate": options.lr},
        precision=options.precision,
        seed=options.seed,
    )
    clock = Clock(Loader(train, options.batch, shuffle=True, seed=options.seed))
    Trainer(model, config, progress=False).fit(clock)
    line = {"peer": f"recembed {version('recembed')}", "model": options.model, "rows": len(train)}
    line |= {"vocab": options.vocab, **speeds(clock.times, len(train), options.batch), "peak_train_mb": peak_mb()}
    if not options.no_eval:
        line |= evaluate(model, encode(log.test, fitted, key_features=embedding.key_features), options)
    store = next(module for module in model.modules() if isinstance(module, RowStore))
    line |= {"peak_rss_mb": peak_mb(), "prepare_s": round(prepared, 2), "torch": torch.__version__}
    line |= {name: getattr(options, name) for name in ("batch", "mlp", "dim", "table", "precision", "row_lr")}
    line |= {"row_store": type(store).__name__, "table_rows": store.stack_rows[options.dim]}
    line |= {"row_mb": round(store.bytes / 2**20), "data": log.source, "threads": torch.get_num_threads()}
    print(json.dumps(line), flush=True)


def evaluate(model: CTRModel, test: EncodedData, options: argparse.Namespace) -> dict[str, float]:
    """Return the AUC of the test rows and the seconds it took."""
    started = time.perf_counter()
    labels, logits = predict_logits(model, Loader(test, options.batch, shuffle=False, seed=0))
    return {"eval_s": round(time.perf_counter() - started, 2), "auc": round(auc(labels, logits), 5)}


def main() -> None:
    """Run every combination, each in a process of its own."""
    options = arguments()
    choices = [getattr(options, name).split(",") for name in LISTS]
    combinations = list(itertools.product(*choices)) * options.repeat
    if len(combinations) == 1:
        return run(options)
    for combination in combinations:
        chosen = itertools.chain.from_iterable((f"--{n}", v) for n, v in zip(LISTS, combination, strict=True))
        subprocess.run([sys.executable, *sys.argv, *chosen, "--repeat", "1"], check=True)
    return None


if __name__ == "__main__":
    main()
