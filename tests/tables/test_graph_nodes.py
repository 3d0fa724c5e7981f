"""``lightgcn`` and ``ngcf`` inside a model: which ids, how often, what is served, what is refused."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import CheckpointError, ConfigError
from recembed.graph import GraphEncoder, InteractionGraph, LightGCN, load_graph, save_graph
from recembed.rows import PlainStore, RowTable
from recembed.tables import GraphTable, LightGCNConfig, NGCFConfig, ServedTable, Table, TableSpec
from tests.embedding.fixtures import batch, fitted, visits


def spec(name: str, values: list[Any], width: int = 4, **options: Any) -> TableSpec:
    return TableSpec(name, 3 + len(values), width, reserved_ids=3, values=pl.Series(values), **options)


def graph_of(folder: Path, users: list[Any], items: list[Any]) -> Path:
    save_graph(InteractionGraph.from_frame(pl.DataFrame({"user_id": users, "item_id": items})), folder / "graph")
    return folder / "graph"


def build(folder: Path, **options: Any) -> dict[str, Table]:
    """User bob met film 30, ann met 10 and 30; the schema also knows eve and 77, and does not know ann."""
    graph = graph_of(folder, ["bob", "ann", "ann"], [30, 10, 30])
    specs = [spec("user_id", ["eve", "bob"]), spec("item_id", [30, 77, 10])]
    return LightGCNConfig(graph=graph, **({"layers": 1} | options)).build(specs, seed=0)


def vectors(table: Table, *ids: int) -> Tensor:
    return table.eval().decode([], torch.tensor(ids)).detach()


def encoder_of(table: Table) -> GraphEncoder:
    assert isinstance(table, GraphTable)
    return table.shared.encoder


def test_worked_by_hand(tmp_path: Path) -> None:
    """Of the edges only bob–30 lies between known ids; each then has degree 1, so one hop is the other's vector."""
    tables = build(tmp_path)
    base = encoder_of(tables["user_id"]).get_parameter("base.weight").detach()  # 5 ids of users, then 6 of items
    bob, film = base[4], base[5 + 3]
    torch.testing.assert_close(vectors(tables["user_id"], 4), ((bob + film) / 2)[None])
    torch.testing.assert_close(vectors(tables["item_id"], 3), ((bob + film) / 2)[None])


def test_ids_that_the_graph_lacks_have_their_own_vectors(tmp_path: Path) -> None:
    """Out of vocabulary (2), eve (3), and film 77 (4)."""
    tables = build(tmp_path)
    base = encoder_of(tables["user_id"]).get_parameter("base.weight").detach()
    torch.testing.assert_close(vectors(tables["user_id"], 2, 3), base[2:4] / 2)
    torch.testing.assert_close(vectors(tables["item_id"], 2, 4), base[[7, 9]] / 2)


def test_served_are_the_propagated_vectors_also_of_unknown_ids(tmp_path: Path) -> None:
    tables = build(tmp_path)
    store = PlainStore([RowTable("other", 1, 1)], optimizer=None, seed=0, device="cpu")
    for name, ids in (("user_id", range(5)), ("item_id", range(6))):
        served = tables[name].compact(store)
        assert isinstance(served, ServedTable) and served.overhead_bytes == tables[name].served_overhead_bytes
        assert torch.equal(vectors(served, *ids), vectors(tables[name], *ids))


def embed(table: dict[str, Any], **options: Any) -> FeatureEmbedding:
    settings = {"embedding_dim": 8, "row_store": "torch", "table": {"user": "user", "item": "item"} | table}
    return FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(settings | options))


def test_one_propagation_a_step_for_user_item_and_history(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    propagate = LightGCN.propagate
    monkeypatch.setattr(LightGCN, "propagate", lambda self: (calls.append(1), propagate(self))[1])
    embedding = embed({"kind": "lightgcn", "graph": visits()})
    dense = torch.optim.SGD(embedding.parameters(), lr=0.1)
    losses = []
    for step in range(3):
        dense.zero_grad()
        loss = embedding(batch(16)).concat().square().sum()
        loss.backward()
        dense.step()
        losses.append(loss.item())
        assert len(calls) == step + 1
    assert losses[2] < losses[1] < losses[0]  # the propagation that is read is never that of before the step
    embedding.eval()
    with torch.no_grad():
        first = embedding(batch(16)).concat()
        assert torch.equal(embedding(batch(16)).concat(), first) and len(calls) == 4


def test_gradients_add_up_over_two_batches_before_a_step() -> None:
    embedding = embed({"kind": "lightgcn", "graph": visits()})
    parameter = next(p for name, p in embedding.named_parameters() if name.endswith("base.weight"))
    found = []
    for seed in (1, 2):
        embedding(batch(16, seed=seed)).concat().sum().backward()
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
    embedding.zero_grad()
    embedding(batch(16, seed=2)).concat().sum().backward()
    torch.testing.assert_close(found[1] - found[0], parameter.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("base", ["hashed", "multiplexed", "mixed_dimension", "tensor_train", "deep_hash", "pep"])
def test_any_method_is_a_base_and_trains(base: str) -> None:
    options = {"hashes": 8, "hidden": 8} if base == "deep_hash" else {"ratio": 0.5}
    embedding = embed({"kind": "lightgcn", "graph": visits(), "base": {"kind": base} | options})
    embedding(batch(64)).concat().square().sum().backward()
    encoder = encoder_of(embedding.tables["user"])
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_base_that_moves_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="moves rows while it trains, so it cannot be the base of a graph"):
        embed({"kind": "lightgcn", "graph": visits(), "base": {"kind": "cafe", "ratio": 0.5, "exact_below": 20}})
    with pytest.raises(ValidationError, match="base = 'ngcf': a graph cannot be propagated over a graph"):
        build(tmp_path, base={"kind": "ngcf", "graph": "graph"})


def test_the_layers_of_ngcf_share_the_width() -> None:
    table = embed({"kind": "ngcf", "graph": visits(), "layers": 2}).tables["user"]
    assert table.embedding_dim == 8
    assert encoder_of(table).get_parameter("base.weight").shape == (403 + 303, 4)
    with pytest.raises(ConfigError, match="layers = 9: vectors 8 wide cannot hold 10 of them"):
        embed({"kind": "ngcf", "graph": visits(), "layers": 9})


def test_other_edges_are_another_model(tmp_path: Path) -> None:
    trained = embed({"kind": "lightgcn", "graph": visits()})
    save_graph(InteractionGraph.of([0], [0]), tmp_path / "graph")
    other = embed({"kind": "lightgcn", "graph": tmp_path / "graph"})
    with pytest.raises(CheckpointError, match="feature 'user' was trained over other edges than those of the graph"):
        other.load_state_dict(trained.state_dict())


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, ["bob"], [30])
    user = spec("user_id", ["bob"])
    with pytest.raises(ConfigError, match="no feature 'item_id' has it; give user and item the same settings"):
        LightGCNConfig(graph=graph).build([user], seed=0)
    with pytest.raises(ConfigError, match="has no edge between ids of 'user_id' and 'item_id'"):
        LightGCNConfig(graph=graph).build([user, spec("item_id", [31])], seed=0)
    with pytest.raises(ConfigError, match="differ in width"):
        NGCFConfig(graph=graph).build([user, spec("item_id", [30], 8)], seed=0)


def test_pretrained_vectors_go_in_frozen(tmp_path: Path) -> None:
    """Vectors of a trained encoder by raw id, read as content that does not move."""
    graph = load_graph(visits())
    _, items = LightGCN(graph, 8, 2)()
    file = tmp_path / "items.parquet"
    pl.DataFrame({"id": graph.item_ids, "vector": items.detach().numpy()}).write_parquet(file)
    encoder = {"vectors": {"graph": {"path": file}}, "tune": "frozen", "with_id": False, "fuse": "sum"}
    encoder["cache"] = tmp_path / "cache"
    settings = {"embedding_dim": 8, "row_store": "torch", "features": {"item": {"encoder": encoder}}}
    embedding = FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(settings)).eval()
    rows = batch(32, embedding.key_features)  # content is read by raw key
    places = graph.items_of(pl.Series(rows.ids[:, 1].tolist()))
    known = torch.from_numpy(places >= 0)
    assert known.sum() > 20
    got, expected = embedding(rows).fields["item"][known], (items - items.mean(0)).detach()[places[places >= 0]]
    torch.testing.assert_close(got / got.norm(), expected / expected.norm())  # as content: centred, one scale for all
