"""The main job: one config in, one run folder out."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from recembed.config import RunConfig
from recembed.data import EncodedData
from recembed.data.report import report
from recembed.embedding import embedding_plan, plan_lines
from recembed.models import CTRModel
from recembed.run.build import build_model, embedding_of
from recembed.run.data import RunData, open_data, reading_rows
from recembed.run.files import prepare_folder, write_json, write_table, write_text
from recembed.run.outcome import RunResult, evaluate_parts, keep_results, run_metrics, run_warnings
from recembed.run.parts import encode_parts, fit_or_load, training_loader, validation_loader
from recembed.run.plan import check_stages, planned_stages
from recembed.run.record import RunRecord, check_resumed, clear_outputs, data_digest
from recembed.run.reports import golden_rows, log_reports, make_tracker
from recembed.run.stage_folder import StageRecord
from recembed.run.stage_work import StageWork
from recembed.run.stages import StageRunner
from recembed.schema.fitted import FittedSchema
from recembed.tables.collisions import collision_report
from recembed.training import Checkpointer, Tracker, Trainer, TrainResult

__all__ = ["RunResult", "train"]


def train(
    config: RunConfig,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    tracker: Tracker | None = None,
    say: Callable[[str], None] | None = None,
) -> RunResult:
    """Fit vocabularies, train, evaluate, and write everything to ``out``.

    ``out`` will hold ``config.yaml`` (effective), ``metrics.json``, ``features.parquet``, ``collisions.parquet``
    and ``plan.parquet`` (reports; the plan of the tables is said before training too), ``slices/``, ``predictions_<part>.parquet`` and ``checkpoint/`` (weights, optimiser, mapping). A run of
    several stages also holds ``stages/<number>-<name>/`` with a checkpoint and ``stage.json`` each.

    Args:
        config: The whole run.
        out: The run folder.
        resume: Go on from the last checkpoint in ``out``, bit for bit; finished stages are not done again.
        overwrite: Replace a run that is there.
        progress: Show a progress bar; None shows it on a terminal only.
        tracker: Who is told; None takes the one that ``config.tracking`` names.
        say: Hears the plan of the tables, a line when a stage begins, and what it found when it ends.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: see their messages; nothing that was there is lost.
    """
    started = time.perf_counter()
    out = Path(out)
    prepare_folder(out, may_exist=resume or overwrite)
    begun = RunRecord.read(out) if resume else None
    job = _prepared(config, out, resume=begun is not None)
    digest = data_digest(job.parts)
    if begun is None:
        clear_outputs(out)
    else:
        check_resumed(out, begun, job.config, digest)
    tracker = tracker or make_tracker(job.config.tracking, resume=begun.run_id if begun else None)
    tracker.start(job.config.name, job.config.to_dict(), {"recembed.run_folder": str(out.resolve())})
    done = False
    try:
        RunRecord(digest, tracker.run_id).write(out)
        write_text(out / "config.yaml", job.config.to_yaml())
        _report(job, tracker, digest, say or (lambda line: None))
        job, trained, stages = _trained(job, tracker, progress, say, resume=begun is not None)
        if trained.stopped == "interrupted":
            return RunResult(out, {}, trained, tracker.url, trained.warnings)
        results = evaluate_parts(job.model, job.data, job.parts, job.config)
        metrics = run_metrics(results, job.model, trained, stages)
        metrics |= {"seconds": time.perf_counter() - started, "run_id": tracker.run_id or uuid.uuid4().hex}
        write_json(out / "metrics.json", metrics)
        keep_results(out, results)
        write_table(out / "golden.parquet", golden_rows(job.data, results))
        notes = log_reports(tracker, out, job.data, job.model, job.fitted, results, metrics)
        done = True
        return RunResult(out, metrics, trained, tracker.url, [*run_warnings(trained, results), *notes])
    finally:
        tracker.end(ok=done)


@dataclass(frozen=True)
class _Job:
    """A run before and after its training: rows, mapping and model."""

    out: Path
    data: RunData
    fitted: FittedSchema
    model: CTRModel
    parts: dict[str, EncodedData]

    @property
    def config(self) -> RunConfig:
        return self.data.config


def _prepared(config: RunConfig, out: Path, *, resume: bool) -> _Job:
    """Open, fit, build and encode; nothing is written yet."""
    with reading_rows(config):
        data = open_data(config)
        fitted, kept = fit_or_load(data, out, resume=resume)
        stages = planned_stages(data.config, fitted.schema)
        if stages:
            data = replace(data, config=data.config.model_copy(update={"stages": stages}))
        model = build_model(fitted, data.config)
        parts = encode_parts(data, fitted, kept, model)
    check_stages(stages, embedding_of(model), parts["valid"])
    return _Job(out, data, fitted, model, parts)


def _trained(
    job: _Job, tracker: Tracker, progress: bool | None, say: Callable[[str], None] | None, *, resume: bool
) -> tuple[_Job, TrainResult, list[StageRecord]]:
    """Train, in stages where there are any; return the job with the model that came of it."""
    if job.config.stages:
        work = StageWork(job.config, job.config.stages, job.fitted, job.parts, progress)
        runner = StageRunner(work, job.model, job.out, tracker, say or (lambda line: None))
        trained = runner.run(resume=resume)
        return replace(job, model=runner.model), trained, runner.records
    checkpointer = Checkpointer(job.out / "checkpoint", job.fitted, job.config.to_dict())
    trained = Trainer(job.model, job.config.training, tracker=tracker, progress=progress).fit(
        training_loader(job.parts["train"], job.config.training),
        validation_loader(job.parts["valid"], job.config.training),
        checkpoint=checkpointer,
        resume=resume,
    )
    return job, trained, []


def _report(job: _Job, tracker: Tracker, digest: str, say: Callable[[str], None]) -> None:
    tracker.dataset(job.data.name, digest=digest, rows=job.fitted.rows, source=job.data.origin)
    tables = {
        "features": report(job.fitted, job.parts),
        "collisions": collision_report(embedding_of(job.model).tables, job.fitted.vocabularies),
        "plan": embedding_plan(embedding_of(job.model)),
    }
    for line in plan_lines(tables["plan"]):
        say(line)
    for name, frame in tables.items():
        write_table(job.out / f"{name}.parquet", frame)
        tracker.table(name, frame)
