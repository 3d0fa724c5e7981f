"""A small click log in a file: string and integer ids, a bag, a number with gaps, a planted preference."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROWS = 1200
SCHEMA: dict[str, Any] = {
    "features": [
        {"name": "user", "role": "user"},
        {"name": "item", "role": "item"},
        {"name": "tags", "kind": "bag", "separator": "|"},
        {"name": "price", "kind": "numeric"},
    ],
    "labels": [{"name": "click"}],
    "timestamp": "time",
}


def clicks(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """Return rows in time order; even users like even items."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 30, rows), rng.integers(0, 40, rows)
    tags = [[f"t{i % 5}", f"t{i % 7}"][: i % 3] for i in item]
    price = np.where(rng.random(rows) < 0.1, None, rng.gamma(2.0, 10.0, rows).round(2))
    chance = np.where((user + item) % 2 == 0, 0.85, 0.15)
    return pl.DataFrame(
        {
            "user": [f"u{u:02d}" for u in user],
            "item": item,
            "tags": ["|".join(words) for words in tags],
            "price": pl.Series(price.tolist(), dtype=pl.Float64, strict=False),
            "click": (rng.random(rows) < chance).astype(np.int8),
            "time": np.arange(rows),
        }
    )


def settings(path: Path | str, **changes: Any) -> dict[str, Any]:
    """Return a whole run over ``path`` that trains in a second or two."""
    return {
        "name": "clicks",
        "data": {"path": str(path)},
        "schema": SCHEMA,
        "split": {"by": "time", "valid": 0.15, "test": 0.15},
        "embeddings": {"embedding_dim": 8, "row_optimizer": {"kind": "row_wise_adagrad", "learning_rate": 0.2}},
        "model": {"kind": "deepfm", "hidden_units": [16]},
        "training": {"epochs": 6, "batch_size": 64, "dense_optimizer": {"learning_rate": 0.01}},
        "evaluation": {"slices": ["item"], "resamples": 20},
        "tracking": {"kind": "none"},
    } | changes
