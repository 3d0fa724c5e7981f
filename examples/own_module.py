"""recembed inside your own PyTorch module: two towers whose dot product is the logit.

python examples/own_module.py
"""

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.data import Loader, encode, fit
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.evaluation import auc, predict_logits
from recembed.rows import RowWiseAdagrad
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema
from recembed.training import binary_logloss


class TwoTowers(nn.Module):
    """Any module may hold a ``FeatureEmbedding`` and read its fields by name."""

    def __init__(self, fitted: FittedSchema) -> None:
        super().__init__()
        config = EmbeddingConfig(embedding_dim=16, table="multiplexed", row_optimizer=RowWiseAdagrad(learning_rate=0.1))
        self.embedding = FeatureEmbedding(fitted, config)
        self.user_tower = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.item_tower = nn.Sequential(nn.Linear(16 + 16 + 1, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[B]``."""
        embedded = self.embedding(batch)
        user = self.user_tower(embedded.fields["user"])  # [B, 16]
        item = torch.cat([embedded.fields["item"], embedded.fields["genres"], embedded.dense], dim=1)  # [B, 33]
        logits: Tensor = (user * self.item_tower(item)).sum(dim=1)  # [B]
        return logits


def clicks(rows: int, seed: int) -> pl.DataFrame:
    """Draw users with a liking for one of three genres, and items of one or two genres."""
    random = np.random.default_rng(seed)
    user, item = random.integers(0, 300, rows), random.integers(0, 200, rows)
    chance = np.where((user % 3 == item % 3) | (user % 3 == item % 5), 0.8, 0.15)
    genres = [[f"genre {i % 3}"] + ([f"genre {i % 5}"] if i % 5 < 3 else []) for i in item]
    price = random.lognormal(2, 1, rows)
    return pl.DataFrame(
        {"user": user, "item": item, "genres": genres, "price": price, "click": random.random(rows) < chance}
    )


schema = Schema.from_yaml("""
features:
- {name: user, role: user}
- {name: item, role: item}
- {name: genres, kind: bag}
- {name: price, kind: numeric}
labels:
- {name: click}
""")
train, test = clicks(20_000, seed=0), clicks(4_000, seed=1)
fitted = fit(train, schema)
torch.manual_seed(0)  # of the towers; rows have a seed of their own
model = TwoTowers(fitted)
keys = model.embedding.key_features  # what the tables read as raw keys, not as vocabulary ids
loader = Loader(encode(train, fitted, key_features=keys), batch_size=512, shuffle=True, seed=0)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)  # dense parameters; rows move inside backward()
for _epoch in range(8):
    for batch in loader:
        optimizer.zero_grad()
        loss = binary_logloss(model, batch)
        loss.backward()
        optimizer.step()
labels, logits = predict_logits(
    model, Loader(encode(test, fitted, key_features=keys), batch_size=4096, shuffle=False, seed=0)
)
print(f"test AUC {auc(labels, logits):.3f}, rows {model.embedding.bytes:,} bytes")
