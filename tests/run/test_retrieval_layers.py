"""Recall by layer, and the gate that needs no labels, as a run writes them."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recembed.evaluation import UserItems, evaluate_ranking
from recembed.graph import NGCF, GivenVectors, InteractionGraph, LightGCN
from recembed.retrieval import RetrievalTrainer, RetrievalTraining
from recembed.run import train_retrieval
from recembed.run.retrieval_layers import layer_metrics, reconstruction
from tests.retrieval.blocks import interactions, light_gcn
from tests.run.test_retrieval import config


@pytest.mark.parametrize("model", [{"kind": "lightgcn", "layers": 2}, {"kind": "ngcf", "layers": [8, 8]}])
def test_a_run_writes_recall_by_layer_and_the_gate(tmp_path: Path, model: dict[str, object]) -> None:
    settings = config(tmp_path, model={"embedding_dim": 8, **model}, training={"epochs": 2})
    result = train_retrieval(settings, tmp_path / "run")
    layers = pl.read_parquet(tmp_path / "run" / "layers_test.parquet")
    assert layers["layer"].to_list() == ["0", "1", "2", "all"]
    assert layers["value"][3] == pytest.approx(result.metrics["test"]["recall@10"])
    assert layers["users"].to_list() == [result.metrics["test_users"]] * 4
    assert (tmp_path / "run" / "layers_test.png").read_bytes().startswith(b"\x89PNG")
    gate = json.loads((tmp_path / "run" / "metrics.json").read_text())["reconstruction"]
    assert list(gate) == ["hop_1", "hop_2", "hop_3", "chance_1", "chance_2", "chance_3"]
    assert gate["hop_1"] > 2 * gate["chance_1"]


def test_a_layer_ranks_as_its_vectors_do() -> None:
    train = interactions()
    trainer = RetrievalTrainer(light_gcn(train), train, RetrievalTraining())
    encoder = trainer.encoder
    assert isinstance(encoder, LightGCN)
    found = layer_metrics(trainer, encoder, interactions(seed=1), train, "recall@5")
    assert found is not None
    for place, layer in enumerate(encoder.by_layer()):
        expected = evaluate_ranking(layer[:60], layer[60:], interactions(seed=1), seen=train, k=[5])
        assert found["value"][place] == pytest.approx(expected.metrics["recall@5"])
    torch.testing.assert_close(torch.stack(encoder.by_layer()).mean(0), encoder.propagate())


def test_layers_of_ngcf_stand_side_by_side_and_without_layers_there_are_none() -> None:
    train = interactions()
    graph = InteractionGraph.of(train.users, train.items, num_users=60, num_items=50)
    encoder = NGCF(graph, 4, [3, 2]).eval()
    assert torch.equal(torch.cat(encoder.by_layer(), 1), encoder.propagate())
    assert NGCF(graph, 4, []).by_layer() == LightGCN(graph, 4, 0).by_layer() == []
    trainer = RetrievalTrainer(light_gcn(train, layers=0), train, RetrievalTraining())
    assert layer_metrics(trainer, light_gcn(train, layers=0), train, train, "recall@5") is None


def test_users_are_sampled_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recembed.run.retrieval_layers._USERS", 7)
    train, relevant = interactions(), interactions(seed=1)
    trainer = RetrievalTrainer(light_gcn(train), train, RetrievalTraining())
    assert isinstance(trainer.encoder, LightGCN)
    found = layer_metrics(trainer, trainer.encoder, relevant, UserItems([], [], num_users=60, num_items=50), "recall@5")
    assert found is not None and found["users"].to_list() == [7, 7, 7, 7]


def test_vectors_of_chance_are_told() -> None:
    generator = np.random.default_rng(0)
    users, items = np.nonzero(generator.random((80, 70)) < 0.2)
    graph = InteractionGraph.of(users, items, num_users=80, num_items=70)
    torch.manual_seed(0)
    said: list[str] = []
    gate = reconstruction(graph, LightGCN(graph, 16, 0, base=GivenVectors(torch.randn(150, 16))), 0, said.append)
    assert gate["hop_1"] == pytest.approx(gate["chance_1"], rel=0.4)
    assert len(said) == 1 and "hardly better than chance" in said[0]
    reconstruction(graph, LightGCN(graph, 64, 1), 0, said.append)
    assert len(said) == 1
