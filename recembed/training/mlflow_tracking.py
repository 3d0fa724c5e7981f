"""The tracker that writes to MLflow 3: the only file that imports ``mlflow``, and only once a run starts."""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recembed.training import mlflow_store as store
from recembed.training.metric_buffer import MetricBuffer, Point
from recembed.training.tracking import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["MLflowTracker"]

_logger = logging.getLogger(__name__)

_LONGEST_DIGEST = 36  # these three are limits of MLflow's stores
_PARAMS_PER_REQUEST = 100
_METRICS_PER_REQUEST = 1000


class MLflowTracker:
    """Writes one run to an MLflow store.

    Where a run is active in this thread, or named by ``MLFLOW_RUN_ID``, it is joined and left open; else a new run
    is opened and closed. MLflow's own settings (tracking URI, experiment, active run) are never changed. Where the
    store does not answer, or stops to, one warning is logged and training goes on without it.

    Args:
        experiment: Name of the experiment, made where it is missing; a joined run keeps its own.
        tracking_uri: The store; by default the one MLflow is set to, which is the SQLite file ``mlflow.db`` in the
            working directory where nothing is set. Artifacts of an experiment made in a SQLite file lie beside the
            file, in ``mlartifacts``.
        enabled: False writes nothing: what every process but the first passes.
        nested: Open a child of the active run in place of joining it.
        parent: Run id of which the new run is a child; no run is joined then.
        resume: Run id of an earlier run to go on with; no run is joined then.
    """

    def __init__(
        self,
        experiment: str = "recembed",
        tracking_uri: str | None = None,
        *,
        enabled: bool = True,
        nested: bool = False,
        parent: str | None = None,
        resume: str | None = None,
    ) -> None:
        self.url = ""
        self.run_id: str | None = None
        self._experiment, self._uri = experiment, tracking_uri
        self._nested, self._parent, self._resume = nested, parent, resume
        self._open = self._artifacts_open = enabled
        self._owned = False
        self._held = ExitStack()
        self._buffer: MetricBuffer | None = None
        self._client: MlflowClient
        self._run = ""

    def start(self, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Open or join a run; the whole of ``params`` is kept as ``config.yaml`` too."""

        def write() -> None:
            self._open_run(run_name, dict(tags or {}))
            self._write_params(flatten(params))
            self._buffer = MetricBuffer(self._send)
            self.run_id = self._run

        def plain() -> dict[str, Any]:
            return dict(json.loads(json.dumps(dict(params), default=str)))

        self._attempt("start a run", write)
        self._attempt_artifact("config.yaml", lambda: self._client.log_dict(self._run, plain(), "config.yaml"))

    def child(self, resume: str | None = None) -> "MLflowTracker":
        """Return the tracker of a run nested under this one."""
        enabled = self._open and self.run_id is not None
        return MLflowTracker(tracking_uri=self._uri, enabled=enabled, parent=self.run_id, resume=resume)

    def dataset(self, name: str, *, digest: str, rows: int, source: str) -> None:
        """Write the data to the run's inputs; the digest is cut to MLflow's 36 characters and whole in a tag."""

        def write() -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            profile, origin = json.dumps({"num_rows": rows}), json.dumps({"uri": source})
            data = Dataset(name, digest[:_LONGEST_DIGEST], "local", origin, profile=profile)
            self._client.log_inputs(self._run, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
            self._client.set_tag(self._run, f"dataset.{store.clean(name)}.digest", digest)

        self._attempt(f"log data set {name!r}", write)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take in numbers; another thread writes them in batches."""
        if self._buffer is None or not self._open:
            return
        try:
            for name, value in metrics.items():
                self._buffer.add(store.clean(name), float(value), step)
        except Exception as error:
            self._lose("write metrics", error)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Write ``tables/<name>.json``, which MLflow's page shows as a table; a second one of a name is appended."""
        columns, file = frame.to_dict(as_series=False), f"tables/{store.clean(name)}.json"
        self._attempt_artifact(file, lambda: self._client.log_table(self._run, columns, file))

    def artifact(self, path: Path) -> None:
        """Copy a file to the run's artifacts, or a folder under its own name."""

        def write() -> None:
            place = path.name if path.is_dir() else None
            (self._client.log_artifacts if place else self._client.log_artifact)(self._run, str(path), place)

        self._attempt_artifact(str(path), write)

    def model(self, bundle: Path, example: pl.DataFrame | None = None) -> None:
        """Log the bundle as the model of the run, opened by ``mlflow.pyfunc.load_model("runs:/<run id>/model")``."""
        self._attempt_artifact(f"model {bundle}", lambda: _log_model(self._client, self._run, bundle, example))

    def end(self, ok: bool) -> None:
        """Write what waits, and close the run if it was opened here."""
        if self._buffer is not None:
            self._attempt("write metrics", self._buffer.close)
        if self._owned:
            status = "FINISHED" if ok else "FAILED"
            self._attempt("end the run", lambda: self._client.set_terminated(self._run, status))
        self._open = False
        self._held.close()

    def _open_run(self, run_name: str, tags: dict[str, str]) -> None:
        import mlflow

        self._held.enter_context(store.short_timeouts())
        self._held.enter_context(store.quiet_loggers("mlflow", "alembic", "urllib3"))
        active = None if self._parent or self._resume else mlflow.active_run()
        self._uri = mlflow.get_tracking_uri() if active or not self._uri else self._uri
        store.check_sqlite(self._uri)
        self._client = mlflow.MlflowClient(self._uri)
        active_id = active.info.run_id if active else None
        joined = active_id or os.environ.get("MLFLOW_RUN_ID")
        if joined and not (self._nested or self._parent or self._resume):
            run = self._client.get_run(joined)
            for key, value in tags.items():
                self._client.set_tag(joined, key, value)
        elif self._resume:
            run, self._owned = self._client.get_run(self._resume), True
            self._client.update_run(self._resume, status="RUNNING")
        else:
            run, self._owned = self._create_run(run_name, tags, self._parent or active_id), True
        self._run = run.info.run_id
        self.url = store.page(self._uri, run.info.experiment_id, self._run)

    def _create_run(self, run_name: str, tags: dict[str, str], parent: str | None) -> "Run":
        from mlflow.tracking.context.registry import resolve_tags

        if parent:
            tags["mlflow.parentRunId"] = parent
            experiment_id = self._client.get_run(parent).info.experiment_id
        elif experiment := self._client.get_experiment_by_name(self._experiment):
            experiment_id = experiment.experiment_id
        else:
            experiment_id = self._client.create_experiment(self._experiment, store.artifact_location(self._uri))
        return self._client.create_run(experiment_id, run_name=run_name, tags=resolve_tags(tags))

    def _write_params(self, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        there = self._client.get_run(self._run).data.params  # of a joined or resumed run; MLflow lets none be changed
        new = [Param(store.clean(key), value) for key, value in params.items() if store.clean(key) not in there]
        for start in range(0, len(new), _PARAMS_PER_REQUEST):
            self._client.log_batch(self._run, params=new[start : start + _PARAMS_PER_REQUEST])

    def _send(self, points: list[Point]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(points), _METRICS_PER_REQUEST):
            metrics = [Metric(*point) for point in points[start : start + _METRICS_PER_REQUEST]]
            self._client.log_batch(self._run, metrics=metrics)

    def _attempt(self, what: str, write: Callable[[], object]) -> None:
        if not self._open:
            return
        try:
            with warnings.catch_warnings(action="ignore"):
                write()
        except Exception as error:
            self._lose(what, error)

    def _attempt_artifact(self, what: str, write: Callable[[], object]) -> None:
        if not (self._open and self._artifacts_open):
            return
        try:
            with warnings.catch_warnings(action="ignore"):
                write()
        except Exception as error:
            self._artifacts_open = False
            _logger.warning(
                "MLflow: cannot keep %s (%s); this run keeps no further artifacts", what, store.one_line(error)
            )

    def _lose(self, what: str, error: Exception) -> None:
        self._open = False
        self._held.close()
        if self._buffer is not None:
            self._buffer.abandon()
        where = self._uri or "the default store"
        _logger.warning("MLflow: cannot %s at %s (%s); training goes on untracked", what, where, store.one_line(error))


def _log_model(client: "MlflowClient", run_id: str, bundle: Path, example: pl.DataFrame | None) -> None:
    """Save the bundle as a model whose loader is ``recembed.pyfunc`` and link it to the run.

    The signature names the output alone: MLflow's check of an input signature refuses polars frames, whole numbers
    with gaps and dictionaries of columns. The bundle checks the rows itself; the example shows them.
    """
    import numpy as np
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    run = client.get_run(run_id)
    logged = client.create_logged_model(run.info.experiment_id, "model", run_id, params=run.data.params)
    about = Model(logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id)
    with tempfile.TemporaryDirectory() as folder:
        pyfunc.save_model(
            Path(folder) / "model",
            loader_module="recembed.pyfunc",
            data_path=str(bundle),
            signature=ModelSignature(outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,))])),
            input_example=None if example is None else example.head(5).to_pandas(),
            pip_requirements=[store.requirement()],
            mlflow_model=about,
        )
        client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
