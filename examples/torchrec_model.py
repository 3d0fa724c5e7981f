"""recembed's trained tables in TorchRec's own DLRM: the rows go over, the addresses stay recembed's.

python examples/torchrec_model.py
"""

import logging
import warnings

import numpy as np
import polars as pl
import torch

from recembed.data import Loader, encode, fit
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.embedding.torchrec_bridge import to_embedding_bag_collection, to_keyed_jagged_tensor
from recembed.evaluation import auc
from recembed.models import DLRM
from recembed.schema.feature import Schema
from recembed.training import Trainer, TrainingConfig

logging.disable(logging.WARNING)
with warnings.catch_warnings():  # of other packages, at import
    warnings.simplefilter("ignore")
    from torchrec.models.dlrm import DLRM as TorchRecDLRM  # noqa: N811

CITIES, SHOPS, DIM = 2_000, 500, 16


def clicks(rows: int, seed: int) -> pl.DataFrame:
    """Draw rows in which clicks depend on city, shop and price."""
    random = np.random.default_rng(seed)
    city, shop = random.integers(0, CITIES, rows), random.integers(0, SHOPS, rows)
    price = random.lognormal(2, 1, rows)
    chance = 1 / (1 + np.exp(np.log(price) - 2 - 2.0 * (city % 2) + 1.0 * (shop % 3)))
    return pl.DataFrame({"city": city, "shop": shop, "price": price, "click": random.random(rows) < chance})


schema = Schema.from_yaml("""
features:
- {name: city}
- {name: shop}
- {name: price, kind: numeric}
labels:
- {name: click}
""")
train, test = clicks(40_000, seed=0), clicks(5_000, seed=1)
fitted = fit(train, schema)

# Train in recembed: one store of half the memory for both features.
table = {"kind": "multiplexed", "ratio": 0.5}
row_optimizer = {"kind": "row_wise_adagrad", "learning_rate": 0.1}
config = EmbeddingConfig.model_validate({"embedding_dim": DIM, "table": table, "row_optimizer": row_optimizer})
embedding = FeatureEmbedding(fitted, config)
encoded = [encode(rows, fitted, key_features=embedding.key_features) for rows in (train, test)]
model = DLRM(embedding, bottom_units=(32,), top_units=(32,))
Trainer(model, TrainingConfig(epochs=4, batch_size=512), progress=False).fit(
    Loader(encoded[0], 512, shuffle=True, seed=0)
)

# Hand the tables to a plain TorchRec model; only its dense layers are trained here.
collection = to_embedding_bag_collection(embedding)
plain = TorchRecDLRM(collection, dense_in_features=1, dense_arch_layer_sizes=[32, DIM], over_arch_layer_sizes=[32, 1])
for bag in collection.embedding_bags.values():
    bag.weight.requires_grad_(False)
optimizer = torch.optim.Adam([p for p in plain.parameters() if p.requires_grad], lr=0.01)
for batch in Loader(encoded[0], 512, shuffle=True, seed=1):
    logits = plain(embedding(batch).dense.detach(), to_keyed_jagged_tensor(embedding, batch)).squeeze(1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels[:, 0])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with torch.no_grad():
    (rows,) = Loader(encoded[1], 5_000, shuffle=False, seed=0)
    keyed = to_keyed_jagged_tensor(embedding, rows)
    pooled = collection(keyed)
    same = all(torch.equal(pooled[name], embedding(rows).fields[name]) for name in ("city", "shop"))
    theirs = plain(embedding(rows).dense, keyed).squeeze(1)
    print(f"same vectors: {same}")
    print(
        f"test AUC: recembed {auc(rows.labels[:, 0], model(rows)):.3f}, TorchRec {auc(rows.labels[:, 0], theirs):.3f}"
    )
