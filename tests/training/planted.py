"""Rows drawn from a logistic model that training can find again."""

from functools import cache

import numpy as np
import polars as pl
from torch import nn

from recembed.data import EncodedData, Loader, encode, fit
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.models import DeepFMConfig
from recembed.schema.feature import Feature, Label, Schema
from recembed.schema.fitted import FittedSchema
from recembed.training import TrainingConfig

SCHEMA = Schema(
    features=(
        Feature(name="user"),
        Feature(name="item"),
        Feature(name="genres", kind="bag"),
        Feature(name="age", kind="numeric"),
    ),
    labels=(Label(name="click"),),
)


@cache
def planted(rows: int = 6000, seed: int = 1) -> tuple[FittedSchema, EncodedData, EncodedData]:
    """Return the mapping, five sixths of the rows for training and one sixth for validation."""
    draw = np.random.default_rng(seed)
    user, item = draw.integers(0, 60, rows), draw.integers(0, 40, rows)
    genres = [draw.integers(0, 9, draw.integers(0, 4)) for _ in range(rows)]
    age = draw.normal(size=rows)
    by_user, by_item, by_genre = draw.normal(size=60), draw.normal(size=40), draw.normal(size=9)
    logits = by_user[user] + by_item[item] + 0.5 * age + np.array([by_genre[g].mean() if len(g) else 0 for g in genres])
    click = (draw.random(rows) < 1 / (1 + np.exp(-1.5 * logits))).astype(np.int64)
    frame = pl.DataFrame({"user": user, "item": item, "genres": [g.tolist() for g in genres], "age": age})
    frame = frame.with_columns(click=pl.Series(click))
    cut = rows * 5 // 6
    fitted = fit(frame[:cut], SCHEMA)
    return fitted, encode(frame[:cut], fitted), encode(frame[cut:], fitted)


def make_model(row_store: str = "auto", *, dropout: float = 0.1, seed: int = 0) -> nn.Module:
    """Return a small DeepFM on the planted rows, the same for each seed."""
    import torch

    fitted, _, _ = planted()
    config = EmbeddingConfig(
        embedding_dim=8, row_store=row_store, row_optimizer={"kind": "row_wise_adagrad", "learning_rate": 0.05}
    )
    embedding = FeatureEmbedding(fitted, config, linear=True, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DeepFMConfig(hidden_units=(16, 8), dropout=dropout).build(embedding)


def loaders(config: TrainingConfig) -> tuple[Loader, Loader]:
    """Return the loaders of training and validation rows."""
    _, train, valid = planted()
    return (
        Loader(train, config.batch_size, shuffle=config.shuffle, seed=config.seed, id_dropout=True),
        Loader(valid, 512, shuffle=False, seed=0),
    )
