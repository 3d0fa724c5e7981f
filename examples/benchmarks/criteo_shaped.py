"""Rows shaped like Criteo's click log: 13 numbers, 26 ids and a label, read from files or drawn here.

The folder of files is what other benchmarks of this kind write: ``v1m`` and ``v10m``, each with ``train.parquet``,
``test.parquet`` (``label``, ``I1`` to ``I13``, ``C1`` to ``C26``) and ``meta.json`` (``vocab``, the ids per field).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

NUMBERS = [f"I{place}" for place in range(1, 14)]
IDS = [f"C{place}" for place in range(1, 27)]
ROWS = {"100k": 100_000, "1m": 1_000_000, "10m": 10_000_000}


@dataclass(frozen=True)
class ClickLog:
    """Training and test rows, how many ids each field has, and where the rows came from."""

    train: pl.LazyFrame
    test: pl.LazyFrame
    sizes: list[int]
    source: str


def load(folder: Path, vocab: str, samples: int, seed: int) -> ClickLog:
    """Read the first ``samples`` training rows where ``folder`` has them, else draw at most 200,000."""
    place = folder / f"v{vocab}"
    if not (place / "meta.json").is_file():
        return draw(ROWS[vocab], min(samples, 200_000), seed)
    sizes = json.loads((place / "meta.json").read_text())["vocab"]
    train = pl.scan_parquet(place / "train.parquet").head(samples)
    return ClickLog(train, pl.scan_parquet(place / "test.parquet"), sizes, "files")


def draw(total: int, samples: int, seed: int) -> ClickLog:
    """Draw ``samples`` training rows and a quarter as many test rows over ``total`` ids."""
    law = Law(total, seed)
    frame = law.rows(samples + samples // 4, np.random.default_rng([seed, 0]))
    return ClickLog(frame[:samples].lazy(), frame[samples:].lazy(), law.sizes, "drawn")


class Law:
    """What rows are drawn from.

    Field sizes rise geometrically, the popularity of ids falls as one over their rank, and the label follows a logistic
    model with a weight per id and per number.

    Args:
        total: Ids of all fields together.
        seed: The weights depend on it.
    """

    def __init__(self, total: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        shares = np.geomspace(1, 1e5, len(IDS))
        self.sizes = [max(3, int(total * share)) for share in shares / shares.sum()]
        self.slopes = random.normal(0, 0.2, len(NUMBERS)).astype(np.float32)
        self.weights = [random.normal(0, 0.3, size).astype(np.float32) for size in self.sizes]

    def rows(self, count: int, random: np.random.Generator) -> pl.DataFrame:
        """Return ``count`` rows."""
        columns: dict[str, np.ndarray] = {}
        logits = np.full(count, -1.8, np.float32)
        for name, slope in zip(NUMBERS, self.slopes, strict=True):
            counts = np.log1p(np.floor(random.lognormal(1.5, 1.2, count))).astype(np.float32)
            logits += slope * (counts - counts.mean())
            columns[name] = np.where(random.random(count) < 0.1, np.float32("nan"), counts)
        for name, size, weights in zip(IDS, self.sizes, self.weights, strict=True):
            rank = np.exp(random.random(count) * np.log(size + 1)).astype(np.int32) - 1  # p(rank) ~ 1 / rank
            columns[name] = np.minimum(rank, size - 1)
            logits += weights[columns[name]]
        columns["label"] = (random.random(count) < 1 / (1 + np.exp(-logits))).astype(np.int8)
        return pl.DataFrame(columns)
