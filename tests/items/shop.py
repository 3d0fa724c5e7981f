"""A shop whose items have content: ids 0 .. 39 are sold, 40 .. 49 are new."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recembed.data import encode, fit
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.models import MODELS
from recembed.models.base import CTRModel
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema

SCHEMA = Schema.parse(
    {
        "features": [
            {"name": "user", "role": "user"},
            {"name": "item", "role": "item", "oov_buckets": 2},
            {"name": "history", "kind": "sequence", "shares": "item"},
        ],
        "labels": [{"name": "click"}],
    }
)


def rows(count: int = 400) -> pl.DataFrame:
    draw = np.random.default_rng(3)
    item, user = draw.integers(0, 40, count), draw.integers(0, 20, count)
    history = [draw.integers(0, 40, draw.integers(0, 4)).tolist() for _ in range(count)]
    click = (draw.random(count) < np.where((item + user) % 2 == 0, 0.9, 0.1)).astype(np.int8)
    return pl.DataFrame({"user": user, "item": item, "history": history, "click": click})


def fitted() -> FittedSchema:
    return fit(rows(), SCHEMA)


def content(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return settings of an encoder: vectors of items 5 .. 49, a genre and a year of all; item 49 has vectors alone."""
    draw = np.random.default_rng(4)
    vectors = draw.normal(0, 1, (45, 6)).astype(np.float32)
    vectors[:, 0] += np.where(np.arange(5, 50) % 2, 3, -3)
    np.savez(folder / "clip.npz", item=np.arange(5, 50), vectors=vectors)
    ids = np.arange(49)
    genres = [f"g{i % 3}|g{i % 5}" for i in ids]
    pl.DataFrame({"item": ids, "genres": genres, "year": 1950 + ids}).write_parquet(folder / "items.parquet")
    return {
        "content": str(folder / "items.parquet"),
        "id": "item",
        "attributes": ["genres", "year"],
        "vectors": {"clip": str(folder / "clip.npz")},
        "cache": str(folder / "cache"),
    } | changes


def config(encoder: dict[str, Any], **changes: Any) -> EmbeddingConfig:
    settings = {"embedding_dim": 4, "row_store": "torch", "features": {"item": {"encoder": encoder}}} | changes
    return EmbeddingConfig.model_validate(settings)


def model(encoder: dict[str, Any], kind: str = "deepfm", **changes: Any) -> CTRModel:
    settings = MODELS[kind].model_validate({"hidden_units": (8,)})
    embedding = FeatureEmbedding(fitted(), config(encoder, **changes), linear=settings.builds.needs_linear, seed=1)
    torch.manual_seed(0)
    return settings.build(embedding)


def train(trained: CTRModel, steps: int = 5) -> list[float]:
    """Take some steps over all rows; return the losses."""
    embedding = trained.embedding
    assert isinstance(embedding, FeatureEmbedding)
    batch = encode(rows(), fitted(), key_features=embedding.key_features).batch(np.arange(400))
    optimizer = torch.optim.Adam(trained.parameters(), 0.02)
    embedding.store.set_learning_rate(0.2)
    losses = []
    trained.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(trained(batch), batch.labels[:, 0])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    trained.eval()
    return losses
