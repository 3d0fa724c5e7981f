import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from recembed.cli import app
from recembed.config import load_config
from recembed.errors import ConfigError, DataError, ExportError
from recembed.evaluation import UserItems, evaluate_ranking, rank_items
from recembed.export.retrieval import brute_force, verify_pair
from recembed.run import RetrievalConfig, export_retrieval, train_retrieval
from recembed.run.retrieval_data import graph_of, open_interactions
from recembed.run.retrieval_vectors import read_run_vectors
from recembed.training import MemoryTracker

SCHEMA = {"features": [{"name": "person", "role": "user"}, {"name": "film", "role": "item"}], "timestamp": "day"}


def rows(seed: int = 0) -> pl.DataFrame:
    """Views of 60 people and 50 films in five blocks, ids as text, in the order of days."""
    generator = np.random.default_rng(seed)
    same = (np.arange(60)[:, None] % 5) == (np.arange(50)[None] % 5)
    people, films = np.nonzero(generator.random((60, 50)) < np.where(same, 0.7, 0.02))
    order = generator.permutation(len(people))
    frame = pl.DataFrame({"person": people[order], "film": films[order], "day": np.arange(len(people))})
    return frame.with_columns(pl.format("p{}", "person").alias("person"), pl.format("f{}", "film").alias("film"))


def config(folder: Path, frame: pl.DataFrame | None = None, **settings: Any) -> RetrievalConfig:
    frame = rows() if frame is None else frame
    frame.write_parquet(folder / "views.parquet")
    training = {"epochs": 8, "batch_size": 64, "learning_rate": 0.05, "evaluate_every": 2, "threads": 1}
    return RetrievalConfig.parse(
        {
            "task": "retrieval",
            "data": {"path": str(folder / "views.parquet")},
            "schema": SCHEMA,
            "split": {"by": "time", "valid": 0, "test": 0.2},
            "model": {"kind": "lightgcn", "embedding_dim": 8, "layers": 2},
            "evaluation": {"k": [5, 10], "resamples": 20},
            "tracking": {"kind": "none"},
            **settings,
            "training": {**training, **settings.get("training", {})},
        }
    )


def test_a_run_leaves_its_metrics_curve_and_vectors(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    result = train_retrieval(config(tmp_path), tmp_path / "run", tracker=tracker)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(result.metrics))
    assert metrics["test"]["recall@10"] > 0.8
    low, high = metrics["intervals"]["recall@10"]
    assert low < metrics["test"]["recall@10"] < high
    curve = pl.read_parquet(tmp_path / "run" / "curve.parquet")
    best = curve.filter(pl.col("epoch") == metrics["best_epoch"])
    assert best["recall@20"].item() == curve["recall@20"].max() == metrics["valid"]["recall@20"]
    assert tracker.ok
    assert tracker.values("test.recall_at_10") == [metrics["test"]["recall@10"]]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]


def test_the_last_training_has_all_interactions_and_the_epochs_that_were_best(tmp_path: Path) -> None:
    result = train_retrieval(config(tmp_path), tmp_path / "run")
    assert result.metrics["interactions"] == round(len(rows()) * 0.8)
    assert result.metrics["epochs"] == result.metrics["best_epoch"]
    held = train_retrieval(config(tmp_path, training={"refit": False}), tmp_path / "held")
    assert held.metrics["interactions"] == pytest.approx(0.9 * len(rows()) * 0.8, rel=0.05)


def test_the_vectors_on_disk_rank_as_the_run_did(tmp_path: Path) -> None:
    result = train_retrieval(config(tmp_path), tmp_path / "run")
    vectors = read_run_vectors(tmp_path / "run")
    people, films = vectors.user_ids.to_list(), vectors.item_ids.to_list()
    frame = rows()
    cut = round(len(frame) * 0.8)
    parts = [
        UserItems(
            [people.index(p) for p in part["person"]],
            [films.index(f) for f in part["film"]],
            num_users=60,
            num_items=50,
        )
        for part in (frame[:cut], frame[cut:])
    ]
    again = evaluate_ranking(vectors.users, vectors.items, parts[1], seen=parts[0], k=[5, 10])
    assert again.metrics == pytest.approx(result.metrics["test"])
    assert vectors.user_counts.tolist() == parts[0].counts.tolist()
    by_user = pl.read_parquet(tmp_path / "run" / "users_test.parquet")
    assert by_user["recall@10"].mean() == pytest.approx(again.metrics["recall@10"])
    assert set(by_user["person"]) <= set(people)
    groups = pl.read_parquet(tmp_path / "run" / "degrees_test.parquet")
    assert groups["users"].sum() == by_user.height
    assert (groups["users"] * groups["value"]).sum() / by_user.height == pytest.approx(again.metrics["recall@10"])
    assert (tmp_path / "run" / "degrees_test.png").read_bytes().startswith(b"\x89PNG")


def test_no_edge_comes_from_the_future(tmp_path: Path) -> None:
    data = open_interactions(config(tmp_path, split={"by": "time", "valid": 0.1, "test": 0.2}))
    frame = rows()
    late = round(len(frame) * 0.2)
    ends = len(frame) - late - round(len(frame) * 0.1), len(frame) - late
    people, films = data.graph.user_ids, data.graph.item_ids
    graph = graph_of(data, data.train)
    edges = set(zip(people[graph.edges.rows].to_list(), films[graph.edges.neighbours].to_list(), strict=True))
    assert edges == set(frame[: ends[0]].select("person", "film").rows())
    assert data.valid is not None
    aside = set(zip(people[data.valid.users].to_list(), films[data.valid.items].to_list(), strict=True))
    assert aside == set(frame[ends[0] : ends[1]].select("person", "film").rows())


def test_validation_judges_users_whom_training_knows_and_the_refit_has_all(tmp_path: Path) -> None:
    late = pl.DataFrame({"person": ["new", "p1"], "film": ["f1", "f2"], "day": [10**6] * 2})
    frame = pl.concat([rows(), late, late.with_columns(person=pl.lit("p2"), day=pl.lit(10**6 + 1, pl.Int64))])
    share = 2 / len(frame)
    settings = config(tmp_path, frame, split={"by": "time", "valid": share, "test": share})
    data = open_interactions(settings)
    assert data.valid is not None and data.judged is not None
    assert len(data.valid) == 2
    assert data.graph.user_ids[data.judged.users].to_list() == ["p1"]
    metrics = train_retrieval(settings, tmp_path / "run").metrics
    assert metrics["interactions"] == len(rows()) + 2 - rows().filter(person="p1", film="f2").height
    assert (metrics["users"], metrics["new_items"]) == (61, None)
    day = pl.when(person="p1").then(pl.lit(10**6, pl.Int64)).otherwise("day")
    alone = pl.concat([rows().with_columns(day=day).sort("day"), late[1:].with_columns(day=pl.lit(10**7, pl.Int64))])
    shares = {"valid": rows().filter(person="p1").height / len(alone), "test": 1 / len(alone)}
    strangers = config(tmp_path, alone, split={"by": "time", **shares})
    with pytest.raises(DataError, match="no user of the validation part is in the training part"):
        train_retrieval(strangers, tmp_path / "strangers")


def test_ids_that_are_only_in_the_test(tmp_path: Path) -> None:
    late = pl.DataFrame({"person": ["p1", "p1", "new"], "film": ["f_new", "f_other", "f1"], "day": [10**6] * 3})
    settings = config(
        tmp_path, pl.concat([rows(), late]), split={"by": "time", "valid": 0, "test": 3 / (len(rows()) + 3)}
    )
    result = train_retrieval(settings, tmp_path / "run")
    assert (result.metrics["unknown_test_users"], result.metrics["unknown_test_items"]) == (1, 2)
    assert result.metrics["test_users"] == 1
    assert result.metrics["test"]["recall@10"] == 0.0
    assert result.metrics["items"] == 50


def test_resumed_is_the_same_run(tmp_path: Path) -> None:
    whole = train_retrieval(config(tmp_path), tmp_path / "whole")
    part = config(tmp_path, training={"epochs": 4})
    train_retrieval(part, tmp_path / "part")
    (tmp_path / "part" / "metrics.json").unlink()
    for file in (tmp_path / "part" / "refit").glob("*"):
        file.unlink()
    again = train_retrieval(config(tmp_path), tmp_path / "part", resume=True)
    assert again.metrics["test"] == whole.metrics["test"]
    with pytest.raises(ConfigError, match=r"model.layers = 1, but the run began with 2"):
        train_retrieval(
            config(tmp_path, model={"kind": "lightgcn", "embedding_dim": 8, "layers": 1}),
            tmp_path / "part",
            resume=True,
        )
    with pytest.raises(DataError, match=r"the rows .* are not those the run began with"):
        train_retrieval(config(tmp_path, rows(seed=1)), tmp_path / "part", resume=True)


def test_the_command_line_trains_it(tmp_path: Path) -> None:
    settings = config(tmp_path)
    (tmp_path / "films.yaml").write_text(settings.to_yaml())
    words = ["train", str(tmp_path / "films.yaml"), "--out", str(tmp_path / "run"), "--set", "training.epochs=2"]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    assert 0 < json.loads(result.stdout)["test"]["recall@10"] <= 1
    shown = CliRunner().invoke(app, [*words, "--overwrite"])
    assert "recall@10" in shown.stdout
    refused = CliRunner().invoke(app, [*words, "--nproc", "2"])
    assert (refused.exit_code, "--nproc 2: a run of task 'retrieval' has no use for it" in refused.output) == (2, True)
    with pytest.raises(ConfigError, match="is a run of task 'retrieval'; this needs one that predicts clicks"):
        load_config(tmp_path / "films.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"schema": {"features": [{"name": "person", "role": "user"}], "timestamp": "day"}},
            "no feature has role 'item'",
        ),
        ({"model": {"kind": "lightgcm"}}, "did you mean 'lightgcn'"),
        ({"training": {"early_stopping": {"metric": "auc"}}}, "expected one of recall"),
        ({"data": {"path": "views.parquet", "dataset": "gowalla"}}, "give either dataset"),
        ({"evaluations": {}}, "unknown key 'evaluations'; did you mean 'evaluation'"),
    ],
)
def test_a_wrong_setting_is_told(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        open_interactions(config(tmp_path, **change))


def test_rows_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'film': 1 rows have no id"):
        open_interactions(config(tmp_path, rows().with_columns(film=pl.when(pl.col("day") != 3).then("film"))))
    empty = config(tmp_path, data={"path": str(tmp_path / "views.parquet"), "where": {"person": ["nobody"]}})
    with pytest.raises(DataError):
        open_interactions(empty)
    strangers = rows().with_columns(
        person=pl.when(pl.col("day") >= len(rows()) - round(len(rows()) * 0.1)).then("film").otherwise("person")
    )
    with pytest.raises(DataError, match="no user of the test part is in the training part"):
        open_interactions(config(tmp_path, strangers, split={"by": "time", "valid": 0, "test": 0.1}))


def test_the_bundles_recommend_what_the_evaluation_did(tmp_path: Path) -> None:
    train_retrieval(config(tmp_path), tmp_path / "run")
    manifests = export_retrieval(tmp_path / "run", tmp_path / "bundles")
    assert manifests["users"].space_id == manifests["items"].space_id
    assert (manifests["users"].count, manifests["items"].count, manifests["items"].dimension) == (60, 50, 8)
    data = open_interactions(config(tmp_path))
    vectors = read_run_vectors(tmp_path / "run")
    for user in np.flatnonzero(data.test.counts):
        seen, raw = data.graph.item_ids[data.train.of(int(user))], data.graph.user_ids[int(user)]
        ranked = rank_items(vectors.users, vectors.items, np.array([user]), 10, seen=data.train)[0]
        items, _ = brute_force(tmp_path / "bundles", raw, seen=seen, k=10)
        assert items.to_list() == data.graph.item_ids[ranked[ranked >= 0]].to_list()


def test_a_bundle_of_other_vectors_is_refused(tmp_path: Path) -> None:
    train_retrieval(config(tmp_path), tmp_path / "run")
    path = tmp_path / "run" / "vectors" / "items.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(pl.col("vector").reverse()).write_parquet(path)
    with pytest.raises(ExportError, match="the files recommend other items than the evaluation did"):
        export_retrieval(tmp_path / "run", tmp_path / "bundles")
    assert not (tmp_path / "bundles").exists()
    frame.write_parquet(path)
    export_retrieval(tmp_path / "run", tmp_path / "bundles")
    with pytest.raises(ExportError, match="exists; choose another folder, or set overwrite"):
        export_retrieval(tmp_path / "run", tmp_path / "bundles")
    export_retrieval(tmp_path / "run", tmp_path / "bundles", overwrite=True)
    with (tmp_path / "bundles" / "items" / "vectors.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ExportError, match="was changed after the export"):
        verify_pair(tmp_path / "bundles")


def test_the_command_line_evaluates_exports_and_verifies(tmp_path: Path) -> None:
    result = train_retrieval(config(tmp_path), tmp_path / "run")
    run, bundles = str(tmp_path / "run"), str(tmp_path / "bundles")
    again = CliRunner().invoke(app, ["evaluate", run, "--json"])
    assert json.loads(again.stdout)["metrics"] == pytest.approx(result.metrics["test"])
    exported = CliRunner().invoke(app, ["export", run, "--out", bundles])
    assert exported.exit_code == 0, exported.output
    checked = CliRunner().invoke(app, ["verify", bundles])
    assert "60 vectors" in checked.stdout
    refused = CliRunner().invoke(app, ["export", run, "--out", bundles, "--feature", "film"])
    assert (refused.exit_code, "leave it out" in refused.output) == (2, True)
    scored = CliRunner().invoke(app, ["predict", run, str(tmp_path / "views.parquet"), "--out", "scores.csv"])
    assert (scored.exit_code, "which scores no rows" in scored.output) == (2, True)
    (tmp_path / "run" / "metrics.json").unlink()
    assert "is not finished" in CliRunner().invoke(app, ["export", run, "--out", bundles]).output
