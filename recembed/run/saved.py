"""A run folder → its model again: evaluated on other rows, asked for predictions, exported."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recembed.config import RunConfig, load_config
from recembed.data import encode, reading, scan
from recembed.errors import ConfigError, DataError, did_you_mean
from recembed.evaluation import compare, sigmoid
from recembed.export import Manifest, export_bundle
from recembed.models import CTRModel
from recembed.run.build import build_model, embedding_of, served_model
from recembed.run.data import open_data, open_rows, reading_rows
from recembed.run.evaluate import PartResult, evaluate_part, score_rows, user_keys
from recembed.run.files import write_table
from recembed.schema.fitted import FittedSchema
from recembed.training import find_checkpoint, load_checkpoint

__all__ = ["SavedRun", "evaluate_run", "export_run", "load_run", "predict_run"]


@dataclass(frozen=True)
class SavedRun:
    """A trained run, read back.

    Attributes:
        folder: The run folder.
        config: Its effective config.
        fitted: Its mapping.
        model: Its best weights, in evaluation mode.
    """

    folder: Path
    config: RunConfig
    fitted: FittedSchema
    model: CTRModel


def load_run(folder: Path | str) -> SavedRun:
    """Read a run folder; checksums are verified.

    Raises:
        ConfigError: there is no run in ``folder``.
        CheckpointError: its checkpoint is missing, damaged or of another mapping.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        near = [str(p.parent) for p in folder.parent.glob("*/config.yaml")] if folder.parent.is_dir() else []
        hint = did_you_mean(str(folder), near) if near else ""
        raise ConfigError(f"run {folder} does not exist (no {folder / 'config.yaml'}){hint}")
    place = find_checkpoint(folder / "checkpoint")
    config = load_config(place / "config.yaml")  # under the checkpoint's checksums
    fitted = FittedSchema.load(place / "fitted")
    model = build_model(fitted, config)
    load_checkpoint(place, model, fitted)
    return SavedRun(folder, config, fitted, model.eval())


@contextmanager
def _rows(run: SavedRun, data: str | None) -> Iterator[pl.LazyFrame]:
    """Give the rows in files, read as the run reads its own, or the run's test rows; faults are told with the file."""
    if data is None:
        with reading_rows(run.config):
            yield open_data(run.config).splits.test
        return
    types = {feature.source: run.fitted.key_types[feature.name] for feature in run.fitted.schema.categorical}
    with reading(data):
        yield open_rows(run.config, data, types) if run.config.data.path is not None else scan(data, dtypes=types)


def evaluate_run(folder: Path | str, *, data: str | None = None, against: Path | str | None = None) -> dict[str, Any]:
    """Evaluate a run on the rows of ``data``, by default on its own test rows.

    Returns:
        ``metrics``, ``slices`` (frames by name), and with ``against`` the paired ``comparison`` with that run on the
        same rows (differences are the other run's metric minus this one's).

    Raises:
        ConfigError: a run is not there. DataError: the rows do not fit it.
    """
    run = load_run(folder)
    with _rows(run, data) as frame:
        groups = user_keys(frame, run.fitted.schema)
        result = _evaluate(run, frame, groups)
        found: dict[str, Any] = {"metrics": result.metrics, "slices": result.slices}
        if against is not None:
            other = _evaluate(load_run(against), frame, groups)
            found["comparison"] = compare(result.labels, result.logits, other.logits, groups=groups)
    return found


def _evaluate(run: SavedRun, frame: pl.LazyFrame, groups: np.ndarray | None) -> PartResult:
    rows = encode(frame, run.fitted, key_features=embedding_of(run.model).key_features)
    return evaluate_part(served_model(run.model), rows, run.config, groups=groups)


def predict_run(folder: Path | str, data: str, out: Path | str) -> dict[str, Any]:
    """Score raw rows and write them with two new columns, ``logit`` and ``probability``.

    Args:
        folder: The run.
        data: Raw rows; labels are not needed.
        out: A ``.parquet`` or ``.csv`` file.

    Returns:
        ``rows``, ``out`` and ``unseen``, the count of unseen ids by feature.
    """
    out = Path(out)
    if out.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"--out {out}: expected a file that ends in .parquet or .csv")
    run = load_run(folder)
    with _rows(run, data) as frame:
        rows = encode(frame, run.fitted, key_features=embedding_of(run.model).key_features, labels=False)
        raw = frame.collect()
    if taken := [name for name in ("logit", "probability") if name in raw.columns]:
        raise DataError(f"{data}: column {taken[0]!r} would be overwritten by the scores; rename it")
    if len(rows) == 0:
        raise DataError(f"{data} has no rows to score")
    logits = score_rows(served_model(run.model), rows, run.config.training.batch_size)
    scored = raw.with_columns(logit=pl.Series(logits), probability=pl.Series(sigmoid(logits)).cast(pl.Float32))
    write_table(out, scored)
    return {"rows": len(rows), "out": str(out), "unseen": dict(rows.unseen)}


def export_run(
    folder: Path | str,
    out: Path | str,
    *,
    feature: str | None = None,
    metric: str = "dot",
    faiss: bool = False,
    new_items: bool = False,
    overwrite: bool = False,
) -> Manifest:
    """Export a run to serving; see ``recembed.export.export_bundle``.

    The bundle is proved with the rows that the run kept, against the logits that it had at its evaluation.

    Raises:
        ConfigError: there is no run. ExportError: the bundle would not serve what was trained.
    """
    if metric not in ("dot", "cosine"):
        raise ConfigError(f"metric = {metric!r}: expected 'dot' or 'cosine'")
    run = load_run(folder)
    golden = run.folder / "golden.parquet"
    if not golden.is_file():
        raise ConfigError(f"run {folder} is not finished (no {golden.name}); go on with --resume, then export")
    with reading(golden):
        rows = pl.read_parquet(golden)
    return export_bundle(
        run.model,
        run.fitted,
        out,
        golden=rows,
        feature=feature,
        metric="dot" if metric == "dot" else "cosine",
        run={"run_id": run_id(run.folder)},
        faiss=faiss,
        new_items=new_items,
        overwrite=overwrite,
    )


def run_id(folder: Path) -> str:
    """Return the id of the run in tracking, or the random one it got where there was none."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return str(metrics["run_id"])
