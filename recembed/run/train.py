"""The main job: one config in, one run folder out."""

import resource
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recembed.config import RunConfig
from recembed.data import EncodedData, KeptRows, Loader, encode, encode_to, fit, fit_and_keep
from recembed.data.report import report
from recembed.models import CTRModel
from recembed.run.build import build_model, embedding_of
from recembed.run.data import RunData, open_data, reading_rows
from recembed.run.evaluate import PartResult, evaluate_part, user_keys
from recembed.run.files import prepare_folder, write_json, write_table, write_text
from recembed.run.record import RunRecord, check_resumed, clear_outputs, data_digest
from recembed.run.reports import golden_rows, log_reports, make_tracker
from recembed.schema.fitted import FittedSchema
from recembed.tables.collisions import collision_report
from recembed.training import Checkpointer, Tracker, Trainer, TrainResult

__all__ = ["RunResult", "train"]


@dataclass(frozen=True)
class RunResult:
    """A finished or interrupted run.

    Attributes:
        folder: Where it lies.
        metrics: The content of ``metrics.json``; empty after an interruption.
        training: How the training went.
        url: What opens the tracking page; empty without tracking.
        warnings: What the user should know, one sentence each.
    """

    folder: Path
    metrics: dict[str, Any]
    training: TrainResult
    url: str
    warnings: list[str]


def train(
    config: RunConfig,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    tracker: Tracker | None = None,
) -> RunResult:
    """Fit vocabularies, train, evaluate, and write everything to ``out``.

    ``out`` will hold ``config.yaml`` (effective), ``metrics.json``, ``features.parquet`` and ``collisions.parquet``
    (reports), ``slices/``, ``predictions_<part>.parquet`` and ``checkpoint/`` (weights, optimiser, mapping).

    Args:
        config: The whole run.
        out: The run folder.
        resume: Go on from the last checkpoint in ``out``, bit for bit.
        overwrite: Replace a run that is there.
        progress: Show a progress bar; None shows it on a terminal only.
        tracker: Who is told; None takes the one that ``config.tracking`` names.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: see their messages; nothing that was there is lost.
    """
    started = time.perf_counter()
    out = Path(out)
    prepare_folder(out, may_exist=resume or overwrite)
    checkpoints = out / "checkpoint"
    with reading_rows(config):
        data = open_data(config)
        config = data.config
        begun = RunRecord.read(out) if resume else None
        fitted, kept = _fitted(data, checkpoints, resume=begun is not None)
        model = build_model(fitted, config)
        parts = _encode(data, fitted, kept, model)
    digest = data_digest(parts)
    if begun is None:
        clear_outputs(out)
    else:
        check_resumed(out, begun, config, digest)
    tracker = tracker or make_tracker(config.tracking, resume=begun.run_id if begun else None)
    tracker.start(config.name, config.to_dict(), {"recembed.run_folder": str(out.resolve())})
    done = False
    try:
        RunRecord(digest, tracker.run_id).write(out)
        write_text(out / "config.yaml", config.to_yaml())
        _report(out, tracker, data, digest, model, parts)
        checkpointer = Checkpointer(checkpoints, fitted, config.to_dict())
        trained = Trainer(model, config.training, tracker=tracker, progress=progress).fit(
            _loader(parts["train"], config, training=True),
            _loader(parts["valid"], config, training=False) if len(parts["valid"]) else None,
            checkpoint=checkpointer,
            resume=begun is not None,
        )
        if trained.stopped == "interrupted":
            return RunResult(out, {}, trained, tracker.url, trained.warnings)
        results = _evaluate(model, data, parts, config)
        metrics = _metrics(results, model, trained, time.perf_counter() - started)
        metrics["run_id"] = tracker.run_id or uuid.uuid4().hex
        write_json(out / "metrics.json", metrics)
        _keep(out, results)
        write_table(out / "golden.parquet", golden_rows(data, results))
        notes = log_reports(tracker, out, data, model, fitted, results, metrics)
        done = True
        return RunResult(out, metrics, trained, tracker.url, [*_warnings(trained, results), *notes])
    finally:
        tracker.end(ok=done)


def _fitted(data: RunData, checkpoints: Path, *, resume: bool) -> tuple[FittedSchema, KeptRows | None]:
    """Return the mapping and, where it was fitted in memory just now, the training rows that were read for it."""
    if resume:
        for place in ("last", "best"):
            if (checkpoints / place / "fitted").is_dir():
                return FittedSchema.load(checkpoints / place / "fitted"), None
    if data.config.data.cache is not None:
        return fit(data.splits.train, data.schema), None
    return fit_and_keep(data.splits.train, data.schema)


def _encode(data: RunData, fitted: FittedSchema, kept: KeptRows | None, model: CTRModel) -> dict[str, EncodedData]:
    keys = embedding_of(model).key_features
    cache = data.config.data.cache
    if cache is not None:
        return {name: encode_to(frame, fitted, cache / name, key_features=keys) for name, frame in data.splits.items()}
    frames = dict(data.splits.items())
    train = kept.encode(keys) if kept else encode(frames["train"], fitted, key_features=keys)
    return {
        "train": train,
        "valid": encode(frames["valid"], fitted, key_features=keys),
        "test": encode(frames["test"], fitted, key_features=keys),
    }


def _loader(data: EncodedData, config: RunConfig, *, training: bool) -> Loader:
    settings = config.training
    return Loader(
        data,
        settings.batch_size,
        shuffle=training and settings.shuffle,
        seed=settings.seed,
        id_dropout=training,
    )


def _report(
    out: Path, tracker: Tracker, data: RunData, digest: str, model: CTRModel, parts: dict[str, EncodedData]
) -> None:
    fitted = parts["train"].fitted
    tracker.dataset(data.name, digest=digest, rows=fitted.rows, source=data.origin)
    tables = {
        "features": report(fitted, parts),
        "collisions": collision_report(embedding_of(model).tables, fitted.vocabularies),
    }
    for name, frame in tables.items():
        write_table(out / f"{name}.parquet", frame)
        tracker.table(name, frame)


def _evaluate(
    model: CTRModel, data: RunData, parts: dict[str, EncodedData], config: RunConfig
) -> dict[str, PartResult]:
    frames = dict(data.splits.items())
    return {
        name: evaluate_part(model, parts[name], config, groups=user_keys(frames[name], data.schema))
        for name in ("valid", "test")
        if len(parts[name])
    }


def _metrics(results: dict[str, PartResult], model: CTRModel, trained: TrainResult, seconds: float) -> dict[str, Any]:
    store = embedding_of(model).store
    rows = sum(table.num_embeddings * table.embedding_dim for table in store.tables.values())
    return {
        "valid": results["valid"].metrics if "valid" in results else None,
        "test": results["test"].metrics if "test" in results else None,
        "embedding_bytes": embedding_of(model).bytes,
        "optimizer_bytes": store.optimizer_bytes,
        "parameters": rows + sum(parameter.numel() for parameter in model.parameters()),
        "samples_per_second": trained.samples_per_second,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": seconds,
        "training_seconds": trained.seconds,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "stopped": trained.stopped,
    }


def _keep(out: Path, results: dict[str, PartResult]) -> None:
    for part, result in results.items():
        write_table(out / f"predictions_{part}.parquet", result.predictions())
        for name, frame in result.slices.items():
            write_table(out / "slices" / f"{part}_{name}.parquet", frame)


def _warnings(trained: TrainResult, results: dict[str, PartResult]) -> list[str]:
    found = [f"{part}: {line}" for part, result in results.items() for line in result.metrics.get("warnings", [])]
    return [*trained.warnings, *found]
