"""A finished run → the tracker: metrics, slices, files, and the model that scores raw rows."""

import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from recembed.config import TrackingConfig
from recembed.data.split import Part
from recembed.export import GOLDEN_LOGIT, export_bundle
from recembed.models import CTRModel
from recembed.run.data import RunData
from recembed.run.evaluate import PartResult
from recembed.run.files import flat_numbers
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema
from recembed.training import NullTracker, Tracker

__all__ = ["golden_rows", "log_reports", "make_tracker"]

_GOLDEN_ROWS = 256


def make_tracker(config: TrackingConfig) -> Tracker:
    """Build the tracker that the config names."""
    if config.kind == "none":
        return NullTracker()
    from recembed.training.mlflow_tracking import MLflowTracker  # mlflow is slow to import

    return MLflowTracker(config.experiment, config.uri)


def log_reports(
    tracker: Tracker,
    out: Path,
    data: RunData,
    model: CTRModel,
    fitted: FittedSchema,
    results: dict[str, PartResult],
    metrics: dict[str, Any],
) -> None:
    """Tell the tracker what came out; with ``tracking.log_model`` also the model, as an exported bundle."""
    tracker.log(flat_numbers(metrics), metrics["steps"])
    for part, result in results.items():
        for name, frame in result.slices.items():
            tracker.table(f"{part}_{name}", frame)
    tracker.artifact(out / "metrics.json")
    if data.config.tracking.log_model and tracker.run_id is not None and data.schema.role("item") is not None:
        golden = pl.read_parquet(out / "golden.parquet")
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            export_bundle(model, fitted, bundle, golden=golden, run={"run_id": tracker.run_id})
            tracker.model(bundle, golden.select(inputs_of(data.schema)))


def inputs_of(schema: Schema) -> list[str]:
    """Return the raw columns a model reads: those of the features, and the weights of bags."""
    columns = [feature.source for feature in schema.features]
    columns += [feature.weights for feature in schema.features if feature.weights]
    return list(dict.fromkeys(columns))


def golden_rows(data: RunData, results: dict[str, PartResult]) -> pl.DataFrame:
    """Return the first evaluated rows, raw, with their logits: what an export must reproduce.

    Without any evaluated part they are training rows, without logits.
    """
    frames = dict(data.splits.items())
    part: Part = "test" if "test" in results else "valid" if "valid" in results else "train"
    rows = frames[part].select(inputs_of(data.schema)).head(_GOLDEN_ROWS).collect()
    if part == "train":
        return rows
    return rows.with_columns(pl.Series(GOLDEN_LOGIT, results[part].logits[: rows.height]))
