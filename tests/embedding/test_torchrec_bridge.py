"""A plain TorchRec model over recembed's tables sees the vectors that recembed sees."""

from typing import Any

import pytest
import torch

from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.embedding.torchrec_bridge import slot_keys, to_embedding_bag_collection, to_keyed_jagged_tensor
from recembed.errors import ConfigError
from tests.embedding.fixtures import batch, fitted

pytest.importorskip("torchrec")

CASES: dict[str, Any] = {
    "full": "full",
    "hashed": {"kind": "hashed", "ratio": 0.5},
    "hashed, 2 probes side by side": {"kind": "hashed", "ratio": 0.5, "probes": 2},
    "multiplexed": {"kind": "multiplexed", "ratio": 0.5, "exact_below": 20},
    "multiplexed, 4 probes": {"kind": "multiplexed", "num_embeddings": 90, "probes": 4, "exact_below": 0},
}


def build(table: Any, pooling: str = "sum", **options: Any) -> FeatureEmbedding:
    features = {name: {"pooling": pooling} for name in ("genres", "history")}
    config = {"embedding_dim": 8, "table": table, "features": features | options}
    return FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(config), linear=True)


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("case", CASES)
def test_the_pooled_vectors_are_those_of_feature_embedding(case: str, pooling: str) -> None:
    embedding = build(CASES[case], pooling)
    rows = batch(50, embedding.key_features)
    pooled = to_embedding_bag_collection(embedding)(to_keyed_jagged_tensor(embedding, rows))
    fields = embedding(rows).fields
    assert sorted(slot_keys(embedding)) == sorted(fields.keys)
    for name, keys in slot_keys(embedding).items():
        vectors = torch.cat([pooled[key] for key in keys], dim=1)
        torch.testing.assert_close(vectors, fields[name], msg=lambda text, name=name: f"{name}: {text}")


def test_probes_that_are_added_have_a_key_each() -> None:
    embedding = build({"kind": "hashed", "ratio": 0.5, "probes": 3, "combine": "sum"})
    rows = batch(50, embedding.key_features)
    pooled = to_embedding_bag_collection(embedding)(to_keyed_jagged_tensor(embedding, rows))
    assert slot_keys(embedding)["user"] == ("user:0", "user:1", "user:2")
    total = pooled["user:0"] + pooled["user:1"] + pooled["user:2"]
    torch.testing.assert_close(total, embedding(rows).fields["user"])


def test_tables_keep_their_names_and_rows() -> None:
    embedding = build(CASES["multiplexed"])
    bags = to_embedding_bag_collection(embedding).embedding_bags
    assert set(bags) == {"multiplexed", "day"}  # the 10 days lie below exact_below; first-order weights stay behind
    for name, bag in bags.items():
        assert torch.equal(bag.weight, embedding.store.rows(name))
    with torch.no_grad():
        bags["day"].weight += 1
    assert not torch.equal(bags["day"].weight, embedding.store.rows("day"))  # a copy, not a view


def test_a_bag_the_collection_cannot_pool_is_refused() -> None:
    for pooling, words in (("max", "'genres' has pooling 'max'"), ("none", "'history' has pooling 'none'")):
        name = "genres" if pooling == "max" else "history"
        with pytest.raises(ConfigError, match=f"{words}.*pools by sum or mean"):
            to_embedding_bag_collection(build("full", **{name: {"pooling": pooling}}))


def test_one_table_is_pooled_in_one_way() -> None:
    words = "'history' has pooling 'mean', but another bag of table 'multiplexed' has 'sum'"
    with pytest.raises(ConfigError, match=words):
        to_embedding_bag_collection(build(CASES["multiplexed, 4 probes"], history={"pooling": "mean"}))
