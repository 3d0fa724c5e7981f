"""A whole run with content: trained, read back, exported with its cold items, and served."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recembed.config import RunConfig
from recembed.data import fit
from recembed.embedding import FeatureEmbedding
from recembed.errors import DataError, ExportError
from recembed.evaluation import auc
from recembed.export import verify_bundle
from recembed.items.table import ContentTable
from recembed.models.base import CTRModel
from recembed.run import evaluate_run, export_run, load_run, predict_run, train
from recembed.run.build import build_model, embedding_of
from recembed.run.data import open_data
from recembed.run.warm_start import warm_start
from recembed.schema.fitted import FittedSchema
from recembed.serve import Server, load
from recembed.training import MemoryTracker
from recembed.training.gradients import stream_gradients
from tests.items import shop


def settings(path: Path, encoder: dict[str, Any], column: str | None = None) -> RunConfig:
    schema = shop.SCHEMA.model_dump(mode="json", exclude_defaults=True)
    if column:
        schema["features"][1]["column"] = column
    return RunConfig.parse(
        {
            "data": {"path": str(path)},
            "schema": schema,
            "split": {"by": "random", "valid": 0.15, "test": 0.15},
            "embeddings": {"embedding_dim": 4, "features": {"item": {"encoder": encoder}}},
            "model": {"kind": "dcnv2", "hidden_units": [8]},
            "training": {"epochs": 2, "batch_size": 64},
            "evaluation": {"slices": ["item"], "resamples": 10},
            "tracking": {"kind": "none"},
        }
    )


def test_a_run_with_content(tmp_path: Path) -> None:
    shop.rows().with_columns(item=pl.col("item") % 38).write_parquet(tmp_path / "clicks.parquet")
    config = settings(tmp_path / "clicks.parquet", shop.content(tmp_path))
    assert RunConfig.parse(config.to_dict()) == config
    train(config, tmp_path / "run")
    cold = pl.DataFrame({"user": [1, 1, 1], "item": [45, 46, 777], "history": [[45], [46], [777]], "click": [0, 0, 0]})
    cold.write_parquet(tmp_path / "cold.parquet")
    predict_run(tmp_path / "run", str(tmp_path / "cold.parquet"), tmp_path / "scores.parquet")
    scores = pl.read_parquet(tmp_path / "scores.parquet")["logit"].to_list()
    assert len(set(scores)) == 3  # two new items are two items, and neither is an unknown one
    export_run(tmp_path / "run", tmp_path / "bundle")
    verify_bundle(tmp_path / "bundle")
    vectors = pl.read_parquet(tmp_path / "bundle" / "vectors.parquet")
    assert vectors["provenance"].unique().to_list() == ["trained"]
    new = pl.read_parquet(tmp_path / "bundle" / "content_vectors.parquet")
    assert set(new["item"]) == set(range(50)) - set(vectors["item"]) and new["provenance"].unique().to_list() == [
        "content"
    ]
    server = load(tmp_path / "bundle")
    assert np.allclose(server.score(cold), 1 / (1 + np.exp(-np.array(scores))), atol=1e-5)
    check_nearest(server, vectors, new)


def check_nearest(server: Server, known: pl.DataFrame, new: pl.DataFrame) -> None:
    """New items are left out unless asked for, are told apart, and may ask themselves."""
    usual, asked = (server.nearest(3, 60, new_items=new_items) for new_items in (False, True))
    assert set(usual["id"]) == set(known["item"]) - {3} and usual["provenance"].unique().to_list() == ["trained"]
    assert set(asked["id"]) == set(range(50)) - {3}
    assert asked.filter(pl.col("id").is_in(new["item"].implode()))["provenance"].unique().to_list() == ["content"]
    assert asked.join(usual, on="id")["score"].to_list() == asked.join(usual, on="id")["score_right"].to_list()
    vectors = {row["item"]: np.array(row["vector"]) for row in [*known.to_dicts(), *new.to_dicts()]}
    by_cosine = server.nearest(45, 3, metric="cosine", new_items=True)
    unit = {item: vector / np.linalg.norm(vector) for item, vector in vectors.items()}
    wanted = sorted((-float(unit[45] @ vector), item) for item, vector in unit.items() if item != 45)[:3]
    assert by_cosine["id"].to_list() == [item for _, item in wanted]
    assert np.allclose(by_cosine["score"], [-score for score, _ in wanted], atol=1e-6)
    assert np.array_equal(server.vector(45), vectors[45]) and server.new_ids.to_list() == new["item"].to_list()
    with pytest.raises(DataError, match="id 777 is not among the"):
        server.nearest(777)


def test_an_index_holds_new_items_where_they_are_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    from recembed.export.faiss_index import FaissIndex

    shop.rows().with_columns(item=pl.col("item") % 38).write_parquet(tmp_path / "clicks.parquet")
    train(settings(tmp_path / "clicks.parquet", shop.content(tmp_path)), tmp_path / "run")
    with pytest.raises(ExportError, match="new_items says what the FAISS index holds; ask for faiss too"):
        export_run(tmp_path / "run", tmp_path / "bundle", new_items=True)
    with pytest.raises(ExportError, match="the exported feature has no content, so there are no new items to index"):
        export_run(tmp_path / "run", tmp_path / "bundle", feature="user", faiss=True, new_items=True)
    for new_items, name in ((False, "known"), (True, "all")):
        manifest = export_run(tmp_path / "run", tmp_path / name, faiss=True, new_items=new_items, metric="cosine")
        server, index = load(tmp_path / name), FaissIndex(tmp_path / name, "cosine")
        assert len(index) == manifest.count + new_items * len(server.new_ids)
        ids = pl.concat([server.ids, server.new_ids])
        rows, scores = index.search(server.vector(45)[None], 4)
        found = server.nearest(45, 4, include_self=True, new_items=new_items)
        assert ids.gather(rows[0]).to_list() == found["id"].to_list()
        assert np.allclose(scores[0], found["score"], atol=1e-6)
    assert found["id"][0] == 45


def test_cold_items_are_held_out_and_measured_apart(tmp_path: Path) -> None:
    rows = shop.rows(1200).filter((pl.col("item") != 7) | (pl.int_range(1200) % 10 == 0)).drop("history")
    rows.write_parquet(tmp_path / "clicks.parquet")
    raw = settings(tmp_path / "clicks.parquet", shop.content(tmp_path)).to_dict()
    raw["schema"]["features"].pop()
    raw |= {"split": {"by": "random", "valid": 0.1, "test": 0.3, "cold_items": 0.3}}
    run = train(RunConfig.parse(raw), tmp_path / "run")
    trained = load_run(tmp_path / "run").fitted.vocabularies["item"]
    counts = dict(zip(trained.values.to_list(), trained.counts.tolist(), strict=True))
    tested = open_data(RunConfig.parse(raw)).splits.test.collect()
    seen = tested["item"].replace_strict(counts, default=0, return_dtype=pl.Int64).to_numpy()
    assert 0 < counts[7] < 5 and len(counts) < 38
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    cold = test["cold_items"]
    assert (cold["under_5"]["n"], cold["unseen"]["n"]) == ((seen < 5).sum(), (seen == 0).sum())
    scored = pl.read_parquet(tmp_path / "run" / "predictions_test.parquet")
    for name, mask in (("under_5", seen < 5), ("unseen", seen == 0), ("from_5", seen >= 5)):
        own = scored.filter(pl.Series(mask))
        assert cold[name]["auc"] == auc(own["label"].to_numpy(), own["logit"].to_numpy())
        assert cold[name]["auc_low"] < cold[name]["auc"] < cold[name]["auc_high"]
    assert run.metrics["valid"]["cold_items"]["unseen"] == {"n": 0}
    evaluated = evaluate_run(tmp_path / "run")["metrics"]["cold_items"]["unseen"]
    assert evaluated["auc"] == cold["unseen"]["auc"] and evaluated["n"] == cold["unseen"]["n"]


def test_the_gradient_of_each_stream_is_tracked(tmp_path: Path) -> None:
    shop.rows().write_parquet(tmp_path / "clicks.parquet")
    config = settings(tmp_path / "clicks.parquet", shop.content(tmp_path))
    tracker = MemoryTracker()
    run = train(config, tmp_path / "run", tracker=tracker)
    told = {name for _, name, _ in tracker.metrics if name.startswith("train/gradient_norm/")}
    assert told == {f"train/gradient_norm/item/{stream}" for stream in ("id", "clip", "attributes")}
    steps = [step for step, name, _ in tracker.metrics if name == "train/gradient_norm/item/id"]
    assert steps == [run.training.steps // 2, run.training.steps]  # at the end of each of two epochs, or every 50 steps
    assert all(0 < value < 10 for _, name, value in tracker.metrics if name in told)


def test_a_gradient_norm_is_that_of_a_mean_step(tmp_path: Path) -> None:
    model = shop.model(shop.content(tmp_path))
    shop.train(model, 1)
    first = stream_gradients(model, 1)
    norms = [stream_gradients(model, 1)]  # nothing happened since
    shop.train(model, 1)
    norms.append(stream_gradients(model, 4))
    assert norms[0] == {} and first.keys() == norms[1].keys()
    shop.train(model, 1)
    tables = {module.name: module for module in model.modules() if isinstance(module, ContentTable)}
    assert set(tables) == {"item", "item.linear"}
    square = tables["item"]._gradients["id"].item()
    assert stream_gradients(model, 4)["train/gradient_norm/item/id"] == pytest.approx((square / 4) ** 0.5)


def build(fitted: FittedSchema, config: RunConfig) -> tuple[FeatureEmbedding, CTRModel]:
    model = build_model(fitted, config)
    return embedding_of(model), model


def test_a_warm_start_gives_ids_their_rows_by_raw_id(tmp_path: Path) -> None:
    encoder = shop.content(tmp_path)
    old = shop.rows().filter(pl.col("item") < 35)
    new = shop.rows().filter(pl.col("item") >= 5)  # as many ids, in another order
    old.write_parquet(tmp_path / "old.parquet")
    config = settings(tmp_path / "old.parquet", encoder)
    train(config, tmp_path / "run")
    fitted = fit(new, shop.SCHEMA)
    embedding, model = build(fitted, config)
    lines = {one.table: one for one in warm_start(model, fitted, config, tmp_path / "run")}
    earlier = load_run(tmp_path / "run")
    before = embedding_of(earlier.model)
    raw = np.arange(40)  # histories know all items
    own, other = (one.vocabularies["item"].lookup(raw) for one in (fitted, earlier.fitted))
    assert (lines["item"].reason, lines["item"].kept) == ("", 40)
    assert (own != other).any()
    assert np.array_equal(embedding.store.rows("item")[own], before.store.rows("item")[other])


def test_without_a_file_of_items_content_stands_in_the_rows(tmp_path: Path) -> None:
    items = pl.read_parquet(shop.content(tmp_path)["content"])
    shop.rows().join(items, on="item").rename({"item": "film"}).write_parquet(tmp_path / "rows.parquet")
    encoder = {"attributes": ["genres", "year"], "cache": str(tmp_path / "cache")}
    config = settings(tmp_path / "rows.parquet", encoder, column="film")
    fitted = fit(pl.read_parquet(tmp_path / "rows.parquet"), config.schema_ or shop.SCHEMA)
    table = build(fitted, config)[0].tables["item"]
    assert isinstance(table, ContentTable) and table.items.ids.to_list() == sorted(shop.rows()["item"].unique())
