"""A small shop: every kind of feature, string and integer ids, missing values; and models trained on it."""

from functools import cache
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
            {"name": "user", "role": "user", "column": "user_id", "min_count": 2, "oov_buckets": 2},
            {"name": "item", "role": "item"},
            {"name": "city"},
            {"name": "tags", "kind": "bag", "weights": "tag_weights"},
            {"name": "history", "kind": "sequence", "shares": "item", "max_length": 4},
            {"name": "age", "kind": "numeric"},
        ],
        "labels": [{"name": "click"}],
    }
)

TABLES: dict[str, Any] = {
    "full": "full",
    "hashed": {"kind": "hashed", "num_embeddings": 11, "probes": 2, "combine": "sum"},
    "multiplexed": {"kind": "multiplexed", "num_embeddings": 60, "probes": 2, "exact_below": 12},
}

SETTINGS: dict[str, Any] = {
    "deepfm": {"hidden_units": (8,)},
    "wide_and_deep": {"hidden_units": (8,)},
    "dlrm": {"bottom_units": (8, 4), "top_units": (8,)},
    "dcnv2": {"hidden_units": (8,)},
}


@cache
def rows() -> pl.DataFrame:
    """300 raw rows."""
    draw = np.random.default_rng(7)
    n = 300
    tags = [[f"t{t}" for t in draw.integers(0, 9, draw.integers(0, 4))] for _ in range(n)]
    return pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in draw.integers(0, 60, n)],
            "item": draw.integers(0, 40, n) * 1_000_003 - 5,
            "city": [None if c == 0 else f"c{c}" for c in draw.integers(0, 8, n)],
            "tags": tags,
            "tag_weights": [[0.5 + len(row)] * len(row) for row in tags],
            "history": [(draw.integers(0, 40, draw.integers(0, 7)) * 1_000_003 - 5).tolist() for _ in range(n)],
            "age": [float("nan") if a < 18 else float(a) for a in draw.integers(10, 90, n)],
            "click": draw.integers(0, 2, n),
        }
    )


@cache
def fitted() -> FittedSchema:
    """The mapping of the first 200 rows; the others hold unseen users."""
    return fit(rows().head(200), SCHEMA)


def trained(
    table: str = "full", model: str = "deepfm", row_store: str = "torchrec", project: bool = False, **settings: Any
) -> CTRModel:
    """A model after three steps, with large enough weights that a wrong row shows."""
    config = EmbeddingConfig(
        table=TABLES[table],
        embedding_dim=4,
        numeric="buckets",
        row_store=row_store,
        project=project,
        init={"scale": 1.0, "law": "uniform"},
        features={"tags": {"pooling": "sum"}, "history": {"pooling": "mean"}, **settings},
    )
    record = MODELS[model].model_validate(SETTINGS.get(model, {}))
    embedding = FeatureEmbedding(fitted(), config, linear=record.builds.needs_linear)
    torch.manual_seed(0)
    built = record.build(embedding)
    data = encode(rows(), fitted(), key_features=embedding.key_features)
    dense = torch.optim.SGD(built.parameters(), lr=0.1)
    for start in (0, 60, 120):
        batch = data.batch(np.arange(start, start + 60))
        torch.nn.functional.binary_cross_entropy_with_logits(built(batch), batch.labels[:, 0]).backward()
        dense.step()
        dense.zero_grad()
    return built
