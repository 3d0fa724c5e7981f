"""A small fitted schema with every kind of feature, and batches for it."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recembed.batch import Batch, Jagged
from recembed.graph import InteractionGraph, save_graph
from recembed.hashing import MISSING_KEY
from recembed.schema.feature import Feature, Schema
from recembed.schema.fitted import FittedSchema, NumericStats
from recembed.schema.vocabulary import Vocabulary

SIZES = {"user": 400, "item": 300, "day": 7, "genres": 40}
SCHEMA = Schema(
    features=(
        Feature(name="user", role="user"),
        Feature(name="item", role="item"),
        Feature(name="day"),
        Feature(name="genres", kind="bag"),
        Feature(name="history", kind="sequence", shares="item", max_length=4),
        Feature(name="age", kind="numeric"),
    )
)


def fitted(sizes: Mapping[str, int] = SIZES) -> FittedSchema:
    """Return vocabularies of known sizes: the raw id ``i`` is key ``i`` and has ``1 + size - i`` occurrences."""
    vocabularies = {
        name: Vocabulary.build(pl.Series(np.arange(size)), np.arange(size), np.arange(size, 0, -1))
        for name, size in sizes.items()
    }
    one = np.ones(1)
    quantiles = np.linspace(0, 80, 257, dtype=np.float32)[None]
    age = NumericStats(40 * one, 20 * one, 3 * one, one, 0 * one, 80 * one, 0 * one, quantiles)
    return FittedSchema(SCHEMA, vocabularies, {"age": age}, dict.fromkeys((*SIZES, "history"), "int"), 1000)


def batch(rows: int, key_features: frozenset[str] = frozenset(), seed: int = 0) -> Batch:
    """Return random rows; features read as keys get raw keys (some missing), the others vocabulary ids."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, count: int) -> torch.Tensor:
        ids = torch.randint(1, SIZES["item" if name == "history" else name] + 3, (count,), generator=generator)
        if name in key_features:
            return torch.where(ids == 1, MISSING_KEY, ids - 3)  # -1 is a key no vocabulary knows
        return ids

    ids = torch.stack([draw(name, rows) for name in ("user", "item", "day")], dim=1)
    jagged = {}
    for name in ("genres", "history"):
        lengths = torch.randint(0, 6, (rows,), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        jagged[name] = Jagged(draw(name, int(offsets[-1])), offsets)
    numeric = torch.rand(rows, 1, generator=generator) * 80
    return Batch(ids, jagged, numeric, torch.zeros(rows, 1))


def row(whole: Batch, place: int) -> Batch:
    """Return one row of a batch as a batch of its own."""
    jagged = {}
    for name, bag in whole.jagged.items():
        start, end = bag.offsets[place : place + 2].tolist()
        jagged[name] = Jagged(bag.values[start:end], torch.tensor([0, end - start]))
    one = slice(place, place + 1)
    return Batch(whole.ids[one], jagged, whole.numeric[one], whole.labels[one])


@functools.cache
def visits() -> Path:
    """Return the folder of a graph over the raw ids of ``fitted``; some ids have no edge, and some edges no id."""
    random = np.random.default_rng(0)
    users, items = random.integers(0, SIZES["user"] + 9, 3000), random.integers(0, SIZES["item"] - 9, 3000)
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save_graph(InteractionGraph.of(users, items), folder / "graph")
    return folder / "graph"
