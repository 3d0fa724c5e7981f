"""A finished run → the tracker: metrics, slices, files, and the model that scores raw rows."""

import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from recembed.config import TrackingConfig
from recembed.data.split import Part
from recembed.errors import ExportError
from recembed.export import GOLDEN_LOGIT, export_bundle
from recembed.export.inputs import raw_columns
from recembed.models import CTRModel
from recembed.run.data import RunData
from recembed.run.evaluate import PartResult
from recembed.run.files import flat_numbers
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema
from recembed.training import NullTracker, Tracker

__all__ = ["golden_rows", "log_reports", "make_tracker"]

_GOLDEN_ROWS = 256


def make_tracker(config: TrackingConfig, *, resume: str | None = None) -> Tracker:
    """Build the tracker that the config names; ``resume`` is the id of the tracked run to go on with."""
    if config.kind == "none":
        return NullTracker()
    from recembed.training.mlflow_tracking import MLflowTracker  # mlflow is slow to import

    return MLflowTracker(config.experiment, config.uri, resume=resume)


def log_reports(
    tracker: Tracker,
    out: Path,
    data: RunData,
    model: CTRModel,
    fitted: FittedSchema,
    results: dict[str, PartResult],
    metrics: dict[str, Any],
) -> list[str]:
    """Tell the tracker what came out; with ``tracking.log_model`` also the model, as an exported bundle.

    Returns:
        What the user should know: why the model was not logged. It stops no run: training is done and kept.
    """
    tracker.log(flat_numbers(metrics), metrics["steps"])
    for part, result in results.items():
        for name, frame in result.slices.items():
            tracker.table(f"{part}_{name}", frame)
    tracker.artifact(out / "metrics.json")
    if not data.config.tracking.log_model or tracker.run_id is None:
        return []
    feature = _exported_feature(data.schema, fitted)
    if feature is None:
        return ["the model was not logged: no feature has a vocabulary, so there are no vectors to export"]
    golden = pl.read_parquet(out / "golden.parquet")
    try:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            export_bundle(model, fitted, bundle, golden=golden, feature=feature, run={"run_id": tracker.run_id})
            tracker.model(bundle, golden.select(raw_columns(data.schema)))
    except ExportError as error:
        return [f"the model was not logged: {error}"]
    return []


def _exported_feature(schema: Schema, fitted: FittedSchema) -> str | None:
    """Return the feature whose vectors go along with the model: the item, else the first one with a vocabulary."""
    item = schema.role("item")
    features = ([item] if item else []) + [*schema.categorical, *schema.jagged]
    return next((feature.name for feature in features if fitted.vocabulary_of(feature.name) is not None), None)


def golden_rows(data: RunData, results: dict[str, PartResult]) -> pl.DataFrame:
    """Return the first evaluated rows, raw, with their logits: what an export must reproduce.

    Without any evaluated part they are training rows, without logits.
    """
    frames = dict(data.splits.items())
    part: Part = "test" if "test" in results else "valid" if "valid" in results else "train"
    rows = frames[part].select(raw_columns(data.schema)).head(_GOLDEN_ROWS).collect()
    if part == "train":
        return rows
    return rows.with_columns(pl.Series(GOLDEN_LOGIT, results[part].logits[: rows.height]))
