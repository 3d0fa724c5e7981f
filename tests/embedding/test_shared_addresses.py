"""First-order weights take the addresses of the vectors where, and only where, they are the same."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.tables.base import Together
from tests.embedding.fixtures import batch, fitted

SHARED = [
    "full",
    {"kind": "multiplexed", "num_embeddings": 300, "exact_below": 10},
    {"kind": "multiplexed", "ratio": 0.5, "exact_below": 0},
    {"kind": "hashed", "num_embeddings": 50},
    {"kind": "hashed", "num_embeddings": 50, "probes": 2, "combine": "sum"},
]
APART = [
    {
        "kind": "multiplexed",
        "ratio": 0.5,
        "exact_below": 0,
        "probes": 2,
    },  # the vectors' rows are half as wide, twice as many
    {"kind": "hashed", "ratio": 0.5, "probes": 4},
    {"kind": "zero_collision", "ratio": 0.5},
]


def embedding(table: Any) -> FeatureEmbedding:
    return FeatureEmbedding(fitted(), EmbeddingConfig(embedding_dim=8, table=table), linear=True, seed=3)


def addressed(model: FeatureEmbedding, monkeypatch: pytest.MonkeyPatch) -> list[Together]:
    """Return the modules whose addresses of single ids were asked for in one forward pass."""
    asked: list[Together] = []
    assert model.first_order is not None
    for group in [*model._groups, *model.first_order._groups]:

        def address(ids: Tensor, together: Together = group.together) -> Tensor:
            asked.append(together)
            return type(together).address(together, ids)

        monkeypatch.setattr(group.together, "address", address)
    model.eval()(batch(5, model.key_features))
    return asked


@pytest.mark.parametrize("table", SHARED, ids=str)
def test_equal_addresses_are_found_once(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = embedding(table)
    assert [id(together) for together in addressed(model, monkeypatch)] == [id(g.together) for g in model._groups]


@pytest.mark.parametrize("table", APART, ids=str)
def test_unequal_addresses_are_found_for_each(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = embedding(table)
    assert model.first_order is not None
    assert len(addressed(model, monkeypatch)) == len(model._groups) + len(model.first_order._groups)


@pytest.mark.parametrize("table", [*SHARED, *APART], ids=str)
def test_weights_are_those_that_their_own_tables_address(table: Any) -> None:
    model = embedding(table).eval()
    for name in model.weights:  # their fresh values are zeros
        for slot in model.weights[name].slots:
            model.store.rows(slot.name).normal_(generator=torch.Generator().manual_seed(len(slot.name)))
    rows = batch(50, model.key_features)
    embedded = model(rows)
    expected = torch.zeros(50)
    for column, feature in enumerate(model.schema.categorical):
        expected += own_weights(model, feature.vocabulary_name, rows.ids[:, column])
    for feature in model.schema.jagged:
        bag = rows.jagged[feature.name]
        owner = torch.arange(50).repeat_interleave(bag.offsets.diff())
        sums = torch.zeros(50).index_add(0, owner, own_weights(model, feature.vocabulary_name, bag.values))
        mean = model.first_order.pooling[feature.name] == "mean"
        expected += sums / bag.offsets.diff().clamp(min=1) if mean else sums
    torch.testing.assert_close(embedded.linear, expected)


def own_weights(model: FeatureEmbedding, name: str, ids: Tensor) -> Tensor:
    table = model.weights[name]
    addresses = table.address(ids)
    rows = [model.store.rows(slot.name)[addresses[:, p]] for p, slot in enumerate(table.slots)]
    return table.decode(rows, ids)[:, 0].detach()
