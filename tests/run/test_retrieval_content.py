"""Retrieval runs whose models read item content: from the config to verified bundles."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recembed.errors import ConfigError, DataError
from recembed.export.retrieval import verify_pair
from recembed.run import RetrievalConfig, export_retrieval, train_retrieval
from recembed.run.retrieval_data import open_interactions
from recembed.run.retrieval_models import ENCODERS
from tests.run.test_retrieval import config, rows

MODELS: dict[str, dict[str, Any]] = {
    "vbpr": {"kind": "vbpr", "embedding_dim": 8},
    "freedom": {"kind": "freedom", "embedding_dim": 8, "neighbours": 5, "edge_dropout": 0.3},
    "lirdrec": {"kind": "lirdrec", "embedding_dim": 4, "hidden": 8, "neighbours": 5},
}


def vectors(folder: Path, films: list[int], name: str = "clip", width: int = 6, seed: int = 0) -> str:
    """Vectors of films ``f0``, ``f1``, …, in any order; those of a block of the interactions are alike."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(0, 1, (5, width))
    values = centres[np.array(films) % 5] + draw.normal(0, 0.3, (len(films), width))
    array = pl.Series("vector", values.astype(np.float32), dtype=pl.Array(pl.Float32, width))
    frame = pl.DataFrame([pl.Series("film", [f"f{film}" for film in films]), array])
    frame.sample(fraction=1, shuffle=True, seed=seed).write_parquet(folder / f"{name}.parquet")
    return str(folder / f"{name}.parquet")


def content_config(folder: Path, model: dict[str, Any], films: range = range(50), **more: Any) -> RetrievalConfig:
    items = {
        "vectors": {"clip": vectors(folder, list(films)), "sound": vectors(folder, list(films), "sound", 4, seed=1)},
        "cache": str(folder / "cache"),
    }
    return config(folder, model={**model, "items": items, **more}, training={"epochs": 4, "evaluate_every": 2})


@pytest.mark.parametrize("kind", MODELS)
def test_trained_evaluated_and_exported(kind: str, tmp_path: Path) -> None:
    train_retrieval(content_config(tmp_path, MODELS[kind]), tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["recall@10"] > 0.6  # by chance 0.2
    assert metrics["items_without_content"] == {"clip": 0, "sound": 0}
    width = {"vbpr": 16, "freedom": 8, "lirdrec": 12}[kind]
    assert metrics["embedding_bytes"] == 4 * width * 110
    manifests = export_retrieval(tmp_path / "run", tmp_path / "bundles")
    assert (manifests["users"].count, manifests["items"].count, manifests["items"].dimension) == (60, 50, width)
    verify_pair(tmp_path / "bundles")


@pytest.mark.parametrize("kind", MODELS)
def test_resumed_is_the_same_run(kind: str, tmp_path: Path) -> None:
    whole = train_retrieval(content_config(tmp_path, MODELS[kind]), tmp_path / "whole")
    short = content_config(tmp_path, MODELS[kind])
    short = short.model_copy(update={"training": short.training.model_copy(update={"epochs": 2})})
    train_retrieval(short, tmp_path / "part")
    (tmp_path / "part" / "metrics.json").unlink()
    for file in (tmp_path / "part" / "refit").glob("*"):
        file.unlink()
    again = train_retrieval(content_config(tmp_path, MODELS[kind]), tmp_path / "part", resume=True)
    assert again.metrics["test"] == whole.metrics["test"]


def test_vectors_go_by_raw_id_and_never_by_the_order_of_rows(tmp_path: Path) -> None:
    data = open_interactions(content_config(tmp_path, MODELS["vbpr"]))
    written = dict(pl.read_parquet(tmp_path / "clip.parquet").iter_rows())
    films = data.graph.item_ids.to_list()
    assert films != [f"f{film}" for film in range(50)]
    np.testing.assert_array_equal(data.content["clip"].matrix, np.array([written[film] for film in films], np.float32))


def test_items_without_a_vector_are_counted_and_can_be_refused(tmp_path: Path) -> None:
    settings = content_config(tmp_path, MODELS["freedom"], range(3, 50))
    data = open_interactions(settings)
    assert data.items_without == {"clip": 3, "sound": 3}
    absent = data.graph.item_ids.filter(pl.Series(~data.content["clip"].present))
    assert sorted(absent) == ["f0", "f1", "f2"]
    result = train_retrieval(settings, tmp_path / "run")
    assert result.metrics["items_without_content"] == {"clip": 3, "sound": 3}
    with pytest.raises(DataError, match=r"clip: 3 of 50 items have no vector, the first is .*set missing: stand_in"):
        open_interactions(content_config(tmp_path, MODELS["freedom"], range(3, 50), missing="stop"))
    with pytest.raises(DataError, match="clip: not one of the 50 items has a vector"):
        open_interactions(content_config(tmp_path, MODELS["freedom"], range(60, 70)))


def test_broken_vectors_are_masked(tmp_path: Path) -> None:
    settings = content_config(tmp_path, MODELS["vbpr"])
    frame = pl.read_parquet(tmp_path / "clip.parquet")
    lists = frame.with_columns(pl.col("vector").cast(pl.List(pl.Float32)))
    bad = pl.DataFrame({"film": ["f7", "f8"], "vector": [[float("nan")] * 6, [1.0, 2.0]]}, schema=lists.schema)
    pl.concat([lists.filter(~pl.col("film").is_in(["f7", "f8"])), bad]).write_parquet(tmp_path / "clip.parquet")
    assert open_interactions(settings).items_without == {"clip": 2, "sound": 0}


def test_new_items_are_ranked_where_the_model_wants_them(tmp_path: Path) -> None:
    late = pl.DataFrame({"person": ["p1", "p2"], "film": ["f51", "f56"], "day": [10**6] * 2})
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    found = {}
    for name, new in (("new", True), ("old", False)):
        settings = content_config(tmp_path / name, MODELS["lirdrec"], range(60), new_items=new)
        share = 2 / (len(rows()) + 2)
        pl.concat([rows(), late]).write_parquet(tmp_path / name / "views.parquet")
        split = {"by": "time", "valid": 0, "test": share}
        settings = RetrievalConfig.parse({**settings.to_dict(), "split": split})
        found[name] = train_retrieval(settings, tmp_path / name / "run").metrics
    assert (found["old"]["items"], found["old"]["unknown_test_items"]) == (50, 2)
    assert (found["new"]["items"], found["new"]["unknown_test_items"]) == (60, 0)
    assert found["old"]["test"]["recall@10"] == 0.0
    assert found["new"]["test"]["recall@10"] > 0
    assert found["new"]["new_items"]["among_new"]["candidates"] == 10
    assert found["new"]["new_items"]["among_new"]["recall@10"] == 1.0
    assert found["old"]["new_items"]["among_all"]["recall@10"] == 0.0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"kind": "vbpr"}, "items: required, but not given"),
        ({"kind": "freedom", "items": {"vectors": "x.parquet"}, "neighbors": 3}, "did you mean 'neighbours'"),
        ({"kind": "lirdrec", "items": {}}, "no content is named"),
        ({"kind": "lirdrek"}, "did you mean 'lirdrec'"),
    ],
)
def test_a_wrong_setting_is_told(model: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        config(tmp_path, model=model)


def test_ids_of_another_type_are_told(tmp_path: Path) -> None:
    settings = content_config(tmp_path, MODELS["vbpr"])
    for name in ("clip", "sound"):
        frame = pl.read_parquet(tmp_path / f"{name}.parquet")
        frame.with_columns(pl.col("film").str.slice(1).cast(pl.Int64)).write_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="items are String in the interactions and Int64 in the content"):
        open_interactions(settings)


def test_every_kind_that_reads_content_is_tried() -> None:
    from recembed.run.retrieval_models import ContentEncoderConfig

    assert {kind for kind, of in ENCODERS.items() if issubclass(of, ContentEncoderConfig)} == set(MODELS)
