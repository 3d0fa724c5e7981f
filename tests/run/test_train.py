"""The main job on a small log: what it writes, what it learns, and that it can be read back."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recembed.config import RunConfig
from recembed.errors import ExportError
from recembed.models import MODELS
from recembed.run import RunResult, evaluate_run, export_run, load_run, predict_run, train
from recembed.serve import load
from recembed.training import MemoryTracker
from tests.run.clicks import clicks, settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    clicks().write_parquet(place / "clicks.parquet")
    return place


@pytest.fixture(scope="module")
def tracker() -> MemoryTracker:
    return MemoryTracker()


@pytest.fixture(scope="module")
def result(folder: Path, tracker: MemoryTracker) -> RunResult:
    config = RunConfig.parse(settings(folder / "clicks.parquet"))
    return train(config, folder / "run", progress=False, tracker=tracker)


def test_it_learns_the_planted_preference(result: RunResult) -> None:
    assert result.metrics["test"]["auc"] > 0.7  # the planted chances allow 0.85
    assert result.metrics["test"]["n"] == 180
    assert result.training.stopped == "finished"


def test_metrics_file_has_what_the_command_line_promises(result: RunResult) -> None:
    written = json.loads((result.folder / "metrics.json").read_text())
    assert written["test"]["auc"] == result.metrics["test"]["auc"]
    promised = {"valid", "test", "embedding_bytes", "parameters", "samples_per_second", "peak_rss_bytes", "seconds"}
    assert promised <= set(written)
    assert {"auc", "logloss", "ne", "n"} <= set(written["test"])
    # user 30, item 40, tags 7 known values and 3 reserved rows each; 8 numbers a row and a first-order weight
    assert written["embedding_bytes"] == 4 * (33 + 43 + 10) * 9


def test_the_tracker_saw_the_run(result: RunResult, tracker: MemoryTracker) -> None:
    assert tracker.params["model.kind"] == "deepfm"
    assert tracker.values("test.auc") == [result.metrics["test"]["auc"]]
    assert {"features", "collisions", "test_frequency_item"} <= set(tracker.tables)
    assert tracker.ok is True


def test_a_run_read_back_scores_the_same(result: RunResult, folder: Path) -> None:
    kept = pl.read_parquet(result.folder / "predictions_test.parquet")
    predicted = predict_run(result.folder, str(folder / "clicks.parquet"), folder / "scores.parquet")
    scores = pl.read_parquet(folder / "scores.parquet")
    assert predicted["rows"] == scores.height == 1200
    np.testing.assert_array_equal(scores["logit"].tail(180).to_numpy(), kept["logit"].to_numpy())
    expected = 1 / (1 + np.exp(-scores["logit"].to_numpy().astype(np.float64)))
    np.testing.assert_allclose(scores["probability"].to_numpy(), expected, rtol=1e-6)


def test_evaluation_again_gives_the_same_metrics(result: RunResult) -> None:
    found = evaluate_run(result.folder, against=result.folder)
    assert found["metrics"]["auc"] == result.metrics["test"]["auc"]
    assert found["comparison"].auc.difference == 0


def test_effective_config_is_a_whole_run(result: RunResult) -> None:
    config = load_run(result.folder).config
    assert config.split is not None
    assert config.split.by == "time"
    assert config.embeddings.embedding_dim == 8


def test_export_and_serve(result: RunResult, folder: Path) -> None:
    export_run(result.folder, folder / "bundle")
    server = load(folder / "bundle")
    rows = clicks().tail(180)
    kept = pl.read_parquet(result.folder / "predictions_test.parquet")["logit"].to_numpy()
    np.testing.assert_allclose(server.score(rows), 1 / (1 + np.exp(-kept)), atol=1e-6)
    assert server.nearest(7, k=3).height == 3
    nothing_known = [{"user": None, "item": None, "tags": None, "price": None}]
    assert 0 < server.score(nothing_known)[0] < 1


def test_csv_rows_with_unseen_ids_are_scored_and_counted(result: RunResult, folder: Path) -> None:
    rows = clicks(rows=5, seed=9).with_columns(user=pl.lit("stranger"), item=pl.Series([1, 2, 3, 4, 99_999]))
    rows.drop("click", "time").write_csv(folder / "new.csv")
    found = predict_run(result.folder, str(folder / "new.csv"), folder / "new_scores.csv")
    assert found["unseen"]["user"] == 5
    assert found["unseen"]["item"] == 1
    assert np.isfinite(pl.read_csv(folder / "new_scores.csv")["probability"].to_numpy()).all()


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"deepfm"}))
@pytest.mark.parametrize("table", ["hashed", {"kind": "multiplexed", "ratio": 0.5, "probes": 2, "exact_below": 10}])
def test_every_model_with_every_method(kind: str, table: object, folder: Path, tmp_path: Path) -> None:
    raw = settings(folder / "clicks.parquet", model=kind)
    raw["embeddings"] |= {"table": table, "numeric": "periodic" if kind == "logistic_regression" else "standardize"}
    raw["training"] |= {"epochs": 1}
    found = train(RunConfig.parse(raw), tmp_path / "run", progress=False)
    assert np.isfinite(found.metrics["test"]["logloss"])


def test_logistic_regression_keeps_no_vectors(folder: Path, tmp_path: Path) -> None:
    found = train(RunConfig.parse(settings(folder / "clicks.parquet", model="logistic_regression")), tmp_path / "run")
    assert found.metrics["embedding_bytes"] == 4 * (33 + 43 + 10)


def test_encoded_cache_trains_to_the_same_weights(result: RunResult, folder: Path, tmp_path: Path) -> None:
    raw = settings(folder / "clicks.parquet")
    raw["data"]["cache"] = str(tmp_path / "cache")
    found = train(RunConfig.parse(raw), tmp_path / "run", progress=False)
    assert found.metrics["test"]["logloss"] == result.metrics["test"]["logloss"]


def test_a_model_that_cannot_be_exported_is_a_warning_not_a_failed_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stored(MemoryTracker):
        @property
        def run_id(self) -> str:
            return "stored"

    def refuse(*_: object, **__: object) -> None:
        raise ExportError("it cannot be traced")

    monkeypatch.setattr("recembed.run.reports.export_bundle", refuse)
    raw = settings(folder / "clicks.parquet", tracking={"kind": "none", "log_model": True})
    raw["training"] |= {"epochs": 1}
    tracker = Stored()
    found = train(RunConfig.parse(raw), tmp_path / "run", progress=False, tracker=tracker)
    assert found.warnings == ["the model was not logged: it cannot be traced"]
    assert tracker.ok is True
    assert (tmp_path / "run" / "metrics.json").is_file()
