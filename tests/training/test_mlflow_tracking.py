import json
import os
import re
import shutil
import sqlite3
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

with warnings.catch_warnings(action="ignore"):  # mlflow.pyfunc warns of its own type hints at import
    import mlflow
    import mlflow.pyfunc
from mlflow import MlflowClient

from recembed.errors import DataError
from recembed.export.raw_rows import Rows, as_frame
from recembed.training.mlflow_store import clean, page, short_timeouts, sqlite_file
from recembed.training.mlflow_tracking import MLflowTracker

PARAMS = {"model": {"kind": "fm", "hidden": [4, 2]}, "seed": 1}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with its tables made, which takes seconds: each test takes a copy."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    with warnings.catch_warnings(action="ignore"):  # MLflow's tables use a deprecated option of SQLAlchemy
        MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture
def current_store(uri: str) -> Iterator[str]:
    """The store, as the one MLflow itself is set to."""
    mlflow.set_tracking_uri(uri)
    yield uri
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


def started(uri: str | None, **arguments: object) -> MLflowTracker:
    tracker = MLflowTracker("films", uri, **arguments)
    tracker.start("first", PARAMS, {"stage": "train"})
    assert tracker.run_id is not None
    return tracker


def test_a_run_from_start_to_end(uri: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    tracker = started(uri)
    for step in range(1, 4):
        tracker.log({"train.loss": 1.0 / step, "auc@user": 0.5}, step)
    tracker.table("vocabulary", pl.DataFrame({"feature": ["city", None], "known": [3, 4]}))
    tracker.artifact(tmp_path / "notes")
    tracker.artifact(tmp_path / "notes" / "a.txt")
    tracker.end(ok=True)

    client = MlflowClient(uri)
    run = client.get_run(tracker.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "films"
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params == {"model.kind": "fm", "model.hidden": "[4, 2]", "seed": "1"}
    assert run.data.tags["stage"] == "train"
    history = client.get_metric_history(tracker.run_id, "train.loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]
    assert run.data.metrics["auc_user"] == 0.5
    files = tmp_path / "mlartifacts" / tracker.run_id / "artifacts"
    assert sorted(str(file.relative_to(files)) for file in files.rglob("*") if file.is_file()) == [
        "a.txt",
        "config.yaml",
        "notes/a.txt",
        "tables/vocabulary.json",
    ]
    assert (files / "config.yaml").read_text() == "model:\n  hidden:\n  - 4\n  - 2\n  kind: fm\nseed: 1\n"
    assert json.loads((files / "tables" / "vocabulary.json").read_text())["data"] == [["city", 3], [None, 4]]
    assert tracker.url == f"mlflow ui --backend-store-uri {uri}"


def test_a_failed_run_is_marked(uri: str) -> None:
    tracker = started(uri)
    tracker.end(ok=False)
    assert MlflowClient(uri).get_run(tracker.run_id).info.status == "FAILED"


def test_dataset_is_an_input_with_its_whole_digest_in_a_tag(uri: str) -> None:
    tracker = started(uri)
    tracker.dataset("clicks", digest="0123456789abcdef" * 4, rows=7, source="clicks.parquet")
    tracker.end(ok=True)
    run = MlflowClient(uri).get_run(tracker.run_id)
    data = run.inputs.dataset_inputs[0].dataset
    assert (data.name, data.digest) == ("clicks", "0123456789abcdef0123456789abcdef0123")
    assert (json.loads(data.profile), json.loads(data.source)) == ({"num_rows": 7}, {"uri": "clicks.parquet"})
    assert run.data.tags["dataset.clicks.digest"] == "0123456789abcdef" * 4


def test_more_params_and_metrics_than_one_request_takes(uri: str) -> None:
    tracker = MLflowTracker("films", uri)
    tracker.start("wide", {f"p{i}": i for i in range(201)})
    tracker.log({f"m{i}": float(i) for i in range(2001)}, step=1)
    tracker.end(ok=True)
    data = MlflowClient(uri).get_run(tracker.run_id).data
    assert (len(data.params), len(data.metrics)) == (201, 2001)


def test_an_active_run_is_joined_and_left_open(current_store: str) -> None:
    run = mlflow.start_run(run_name="mine")
    mlflow.log_param("seed", 7)
    tracker = started(None)
    tracker.log({"loss": 0.5}, step=1)
    tracker.end(ok=True)
    assert tracker.run_id == run.info.run_id
    assert mlflow.active_run() is not None
    after = MlflowClient(current_store).get_run(run.info.run_id)
    assert (after.info.status, after.info.run_name) == ("RUNNING", "mine")
    assert after.data.metrics == {"loss": 0.5}
    assert after.data.params == {"seed": "7", "model.kind": "fm", "model.hidden": "[4, 2]"}


def test_the_run_named_by_the_environment_is_joined(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    tracker = started(uri)
    tracker.end(ok=True)
    assert tracker.run_id == run_id
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_nested_run_is_a_child_and_is_closed(current_store: str) -> None:
    parent = mlflow.start_run()
    tracker = started(None, nested=True)
    tracker.end(ok=True)
    child = MlflowClient(current_store).get_run(tracker.run_id)
    assert tracker.run_id != parent.info.run_id
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.status == "FINISHED"
    assert mlflow.active_run() is not None


def test_a_tracker_can_be_the_parent_of_another(uri: str) -> None:
    parent = started(uri)
    child = started(uri, parent=parent.run_id)
    child.end(ok=True)
    client = MlflowClient(uri)
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    assert client.get_run(parent.run_id).info.status == "RUNNING"
    parent.end(ok=True)


def test_the_stages_of_a_run_are_its_children(uri: str) -> None:
    parent = started(uri)
    stage = parent.child()
    stage.start("1-search", {"stage": {"do": "train"}})
    stage.log({"valid/auc": 0.75}, 3)
    stage.end(ok=False)
    client = MlflowClient(uri)
    run = client.get_run(stage.run_id)
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert (run.info.run_name, run.info.status, run.data.metrics) == ("1-search", "FAILED", {"valid/auc": 0.75})
    assert run.info.experiment_id == client.get_run(parent.run_id).info.experiment_id
    again = parent.child(resume=stage.run_id)
    again.start("1-search", {})
    assert again.run_id == stage.run_id
    again.end(ok=True)
    assert client.get_run(stage.run_id).info.status == "FINISHED"
    assert client.get_run(parent.run_id).info.status == "RUNNING"
    parent.end(ok=True)
    late = parent.child()
    late.start("2-prune", {})
    assert late.run_id is None  # the run is closed


def test_an_earlier_run_is_gone_on_with(uri: str) -> None:
    first = started(uri)
    first.log({"loss": 1.0}, step=1)
    first.end(ok=False)
    second = started(uri, resume=first.run_id)
    client = MlflowClient(uri)
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second.log({"loss": 0.5}, step=2)
    second.end(ok=True)
    assert [point.value for point in client.get_metric_history(first.run_id, "loss")] == [1.0, 0.5]
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_mlflow_and_the_environment_are_left_as_they_were(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ), mlflow.get_tracking_uri()
    tracker = started(uri)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert mlflow.active_run() is None
    tracker.end(ok=True)
    assert (dict(os.environ), mlflow.get_tracking_uri()) == before


def test_a_tracker_that_is_not_enabled_writes_nothing(tmp_path: Path) -> None:
    tracker = MLflowTracker("films", f"sqlite:///{tmp_path}/mlflow.db", enabled=False)
    use(tracker, tmp_path)
    assert (list(tmp_path.iterdir()), tracker.run_id, tracker.url) == ([], None, "")


def use(tracker: MLflowTracker, path: Path) -> None:
    tracker.start("first", PARAMS)
    tracker.dataset("clicks", digest="00", rows=1, source="-")
    tracker.log({"loss": 0.5}, step=1)
    tracker.table("t", pl.DataFrame({"a": [1]}))
    tracker.artifact(path)
    tracker.model(path)
    tracker.end(ok=True)
    tracker.end(ok=True)


def broken_file(tmp_path: Path) -> str:
    (tmp_path / "broken.db").write_text("this is no database, and long enough to be read as one" * 100)
    return f"sqlite:///{tmp_path}/broken.db"


def no_folder(tmp_path: Path) -> str:
    (tmp_path / "file").write_text("")
    return f"sqlite:///{tmp_path}/file/mlflow.db"


def no_writing(tmp_path: Path) -> str:
    (tmp_path / "mlflow.db-journal").mkdir()  # refuses every write, to root too
    return f"sqlite:///{tmp_path}/mlflow.db"


def no_server(tmp_path: Path) -> str:
    return "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        (broken_file, "file is not a database"),
        (no_folder, "File exists|Not a directory"),
        (no_writing, "unable to open database file|disk I/O error"),
        (no_server, "Max retries exceeded"),
    ],
)
def test_without_a_store_training_goes_on_and_says_so_once(
    store: object, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = dict(os.environ)
    tracker = MLflowTracker("films", store(tmp_path))
    use(tracker, tmp_path)
    assert len(caplog.records) == 1
    assert "\n" not in caplog.text.strip()
    assert caplog.records[0].getMessage().startswith("MLflow: cannot start a run at ")
    assert caplog.records[0].getMessage().endswith("training goes on untracked")
    assert re.search(reason, caplog.text)
    assert (tracker.run_id, tracker.url, dict(os.environ)) == (None, "", environment)


def test_a_store_that_stops_is_told_of_once(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = started(uri)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("DROP TABLE metrics")
    connection.close()
    tracker.log({"loss": 0.5}, step=1)
    tracker.end(ok=True)
    tracker.log({"loss": 0.5}, step=2)
    assert [record.getMessage()[:28] for record in caplog.records] == ["MLflow: cannot write metrics"]
    assert "no such table" in caplog.text


def test_a_lost_artifact_does_not_stop_the_metrics(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = started(uri)
    tracker.artifact(tmp_path / "nowhere.txt")
    tracker.artifact(tmp_path / "nowhere.txt")
    tracker.log({"loss": 0.5}, step=1)
    tracker.end(ok=True)
    assert len(caplog.records) == 1
    assert "nowhere.txt" in caplog.text
    assert MlflowClient(uri).get_run(tracker.run_id).data.metrics == {"loss": 0.5}


class Serve(types.ModuleType):
    """Stands in for recembed.serve: the score is the length of the city's name plus a number from the bundle."""

    def load(self, folder: str) -> "Serve":
        self.bias = float((Path(folder) / "bias.txt").read_text())
        return self

    def score(self, rows: Rows) -> np.ndarray:
        rows = as_frame(rows)
        return (rows["city"].str.len_chars().fill_null(0) + rows["user"].fill_null(0) + self.bias).to_numpy()


ROWS = {"user": [100, None, 300], "city": ["a", "bbb", None]}


@pytest.fixture
def logged_model(current_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.pyfunc.PyFuncModel:
    serve = Serve("recembed.serve")
    monkeypatch.setitem(sys.modules, "recembed.serve", serve)
    monkeypatch.setattr(sys.modules["recembed"], "serve", serve, raising=False)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bias.txt").write_text("0.5")
    tracker = started(current_store)
    tracker.model(tmp_path / "bundle", pl.DataFrame(ROWS))
    tracker.end(ok=True)
    shutil.rmtree(tmp_path / "bundle")
    return mlflow.pyfunc.load_model(f"runs:/{tracker.run_id}/model")


def test_the_logged_model_scores_raw_rows_of_every_form(logged_model: mlflow.pyfunc.PyFuncModel) -> None:
    expected = [101.5, 3.5, 300.5]
    for rows in (pl.DataFrame(ROWS), pd.DataFrame(ROWS), ROWS, pl.DataFrame(ROWS).to_dicts()):
        assert logged_model.predict(rows).tolist() == expected
    assert logged_model.predict({"user": 100, "city": "a"}).tolist() == [101.5]


def test_the_logged_model_says_what_it_is(logged_model: mlflow.pyfunc.PyFuncModel) -> None:
    assert logged_model.metadata.flavors["python_function"]["loader_module"] == "recembed.pyfunc"
    output = logged_model.metadata.signature.outputs.inputs[0]
    assert (output.type, output.shape) == (np.dtype("float32"), (-1,))
    assert logged_model.input_example["city"].tolist()[:2] == ["a", "bbb"]
    assert MlflowClient().get_logged_model(logged_model.model_id).status == "READY"


def test_rows_of_another_form_are_refused(logged_model: mlflow.pyfunc.PyFuncModel) -> None:
    with pytest.raises(DataError, match="rows = str: expected a polars or pandas DataFrame"):
        logged_model.predict("city")


def test_addresses_and_names() -> None:
    assert sqlite_file("sqlite:////a/b%20c.db?x=1") == Path("/a/b c.db")
    assert sqlite_file("sqlite:///:memory:") is None
    assert sqlite_file("http://host") is None
    assert page("http://host/", "3", "ab") == "http://host/#/experiments/3/runs/ab"
    assert page("sqlite:////a/b c.db", "3", "ab") == "mlflow ui --backend-store-uri 'sqlite:////a/b c.db'"
    assert clean("auc@" + "x" * 300) == "auc_" + "x" * 246
    with short_timeouts():
        assert os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] == "false"
    assert "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR" not in os.environ
