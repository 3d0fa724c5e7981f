"""The main job: one config in, one run folder out."""

import hashlib
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from recembed.config import RunConfig
from recembed.data import EncodedData
from recembed.data.report import report
from recembed.embedding import embedding_plan, plan_lines
from recembed.models import CTRModel
from recembed.rows import Processes, StoreMaker
from recembed.run.build import build_model, embedding_of
from recembed.run.data import RunData, open_data, reading_rows
from recembed.run.device import choose_device
from recembed.run.evaluate import PartResult
from recembed.run.files import prepare_folder, write_json, write_table, write_text
from recembed.run.outcome import RunResult, evaluate_parts, keep_results, run_metrics, run_warnings
from recembed.run.parts import (
    encode_parts,
    encode_shared,
    fit_or_load,
    fit_shared,
    run_checkpointer,
    shared_folder,
    training_loader,
    validation_loader,
)
from recembed.run.plan import check_stages, planned_stages
from recembed.run.record import RunRecord, check_resumed, clear_outputs, data_digest
from recembed.run.reports import golden_rows, log_reports, make_tracker
from recembed.run.sharding import report_plan, store_maker
from recembed.run.stage_folder import StageRecord
from recembed.run.stage_work import StageWork
from recembed.run.stages import StageRunner
from recembed.run.warm_start import warm_start
from recembed.schema.fitted import FittedSchema
from recembed.tables.collisions import collision_report
from recembed.training import NullTracker, Tracker, Trainer, TrainResult, load_checkpoint

__all__ = ["RunResult", "train"]

_Say = Callable[[str], None]


def train(
    config: RunConfig,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    tracker: Tracker | None = None,
    say: _Say | None = None,
    processes: Processes | None = None,
    plan: Path | str | None = None,
) -> RunResult:
    """Fit vocabularies, train, evaluate, and write everything to ``out``.

    ``out`` will hold ``config.yaml``, ``metrics.json``, reports (``features``, ``collisions`` and ``plan.parquet``),
    ``slices/``, ``predictions_<part>.parquet`` and ``checkpoint/`` (weights, optimiser, mapping); of several stages also
    ``stages/``, each with a checkpoint and ``stage.json``; of several processes ``sharding.yaml`` and ``encoded/``.

    Several processes call it alike; rank 0 alone writes (but for each one's part of the checkpoints), tracks and says.

    Args:
        config: The whole run.
        out: The run folder; all processes see it.
        resume: Go on from the last checkpoint in ``out``, bit for bit; finished stages are not done again.
        overwrite: Replace a run that is there.
        progress: Show a progress bar; None shows it on a terminal only.
        tracker: Who is told; None takes the one that ``config.tracking`` names.
        say: Hears the plan of the tables, a line when a stage begins, and what it found when it ends.
        processes: Those that do the run together; None is one process.
        plan: Who holds which rows: a file, ``size`` or ``torchrec``; see ``recembed.run.sharding``.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: see their messages; nothing that was there is lost.
    """
    out, processes = Path(out), processes or Processes()
    started = time.perf_counter()
    processes.agree("the config", hashlib.sha256(config.to_yaml().encode()).hexdigest()[:12])
    processes.first_does(lambda: prepare_folder(out, may_exist=resume or overwrite))
    begun = processes.first_does(lambda: RunRecord.read(out) if resume else None)
    job = _prepared(config, out, processes, plan, resume=begun is not None)
    run = _Run(job, processes, tracker, say or (lambda line: None), begun, started)
    return run.do(progress)


@dataclass(frozen=True)
class _Job:
    """A run before and after its training: rows, mapping and model."""

    out: Path
    data: RunData
    fitted: FittedSchema
    model: CTRModel
    parts: dict[str, EncodedData]
    make_store: StoreMaker | None
    device: torch.device

    @property
    def config(self) -> RunConfig:
        return self.data.config


def _prepared(config: RunConfig, out: Path, processes: Processes, plan: Path | str | None, *, resume: bool) -> _Job:
    """Open, fit, build and encode; nothing is written yet but, by several processes, the encoded rows."""
    device = choose_device(config.training.device)
    make_store = store_maker(config, processes, plan, device)
    with reading_rows(config):
        data = open_data(config)
        if processes.count > 1:
            fitted, kept = fit_shared(data, out, processes, resume=resume), None
        else:
            fitted, kept = fit_or_load(data, out, resume=resume)
        stages = planned_stages(data.config, fitted.schema)
        if stages:
            data = replace(data, config=data.config.model_copy(update={"stages": stages}))
        model = build_model(fitted, data.config, device, make_store)
        if processes.count > 1:
            parts = encode_shared(data, out, fitted, model, processes, resume=resume)
        else:
            parts = encode_parts(data, fitted, kept, model)
    check_stages(stages, embedding_of(model), parts["valid"])
    return _Job(out, data, fitted, model, parts, make_store, device)


@dataclass
class _Run:
    """A prepared run on its way; see ``train``."""

    job: _Job
    processes: Processes
    given: Tracker | None
    say: _Say
    begun: RunRecord | None
    started: float
    tracker: Tracker = field(default_factory=NullTracker)

    def do(self, progress: bool | None) -> RunResult:
        """Train, evaluate and write."""
        done, out, resume = False, self.job.out, self.begun is not None
        self._first(self._begin)
        try:
            self._warm_start()
            job, trained, stages = self._trained(progress, resume=resume)
            if trained.stopped == "interrupted":
                return RunResult(out, {}, trained, self.tracker.url, trained.warnings)
            results = evaluate_parts(job.model, job.data, job.parts, job.config, self.processes)
            metrics = run_metrics(results, job.model, trained, stages)
            notes = self._first(lambda: self._end(job, results, metrics)) or []
            done = True
            return RunResult(out, metrics, trained, self.tracker.url, [*run_warnings(trained, results), *notes])
        finally:
            self.tracker.end(ok=done)

    def _first(self, work: Callable[[], Any]) -> Any:
        return self.processes.first_does(work)

    def _warm_start(self) -> None:
        """Take over what an earlier run learned, unless a checkpoint of this one holds it already."""
        config, out = self.job.config, self.job.out
        if config.warm_start is None or self._first(lambda: any(out.glob("**/last*/manifest.json"))):
            return
        for carried in warm_start(self.job.model, self.job.fitted, config, config.warm_start):
            if self.processes.rank == 0:
                self.say(f"warm start from {config.warm_start}: {carried.line}")

    def _begin(self) -> None:
        """Check what is resumed, or make room for what begins; open the tracked run."""
        job, begun = self.job, self.begun
        digest = data_digest(job.parts)
        if begun is None:
            clear_outputs(job.out)
        else:
            check_resumed(job.out, begun, job.config, digest)
        self.tracker = self.given or make_tracker(job.config.tracking, resume=begun.run_id if begun else None)
        self.tracker.start(job.config.name, job.config.to_dict(), {"recembed.run_folder": str(job.out.resolve())})
        try:
            RunRecord(digest, self.tracker.run_id).write(job.out)
            write_text(job.out / "config.yaml", job.config.to_yaml())
            _report(job, self.tracker, digest, self.say)
            report_plan(job.model, job.out, self.say)
        except BaseException:
            self.tracker.end(ok=False)
            raise

    def _trained(self, progress: bool | None, *, resume: bool) -> tuple[_Job, TrainResult, list[StageRecord]]:
        """Train, in stages where there are any; return the job with the model that came of it."""
        job, processes = self.job, self.processes
        say = self.say if processes.rank == 0 else _unheard
        if job.config.stages:

            def build(config: RunConfig) -> CTRModel:
                return build_model(job.fitted, config, job.device, job.make_store)

            work = StageWork(job.config, job.config.stages, job.fitted, job.parts, progress, processes, build)
            runner = StageRunner(work, job.model, job.out, self.tracker, say)
            trained = runner.run(resume=resume)
            return replace(job, model=runner.model), trained, runner.records
        settings = job.config.training
        trained = Trainer(job.model, settings, tracker=self.tracker, device=job.device, progress=progress).fit(
            training_loader(job.parts["train"], settings, processes),
            validation_loader(job.parts["valid"], settings, processes),
            checkpoint=run_checkpointer(job.out / "checkpoint", job.fitted, job.config),
            resume=resume,
        )
        return job, trained, []

    def _end(self, job: _Job, results: dict[str, PartResult], metrics: dict[str, Any]) -> list[str]:
        """Write what came out; return what the user should know."""
        metrics |= {"seconds": time.perf_counter() - self.started, "run_id": self.tracker.run_id or uuid.uuid4().hex}
        write_json(job.out / "metrics.json", metrics)
        keep_results(job.out, results)
        write_table(job.out / "golden.parquet", golden_rows(job.data, results))
        model = job.model
        elsewhere = self.processes.count > 1 or job.device.type != "cpu"
        if elsewhere and self.tracker.run_id is not None and job.config.tracking.log_model:
            model = build_model(job.fitted, job.config)  # whole, in this process's memory
            load_checkpoint(job.out / "checkpoint", model, job.fitted)
        notes = log_reports(self.tracker, job.out, job.data, model, job.fitted, results, metrics)
        if self.processes.count > 1 and job.config.data.cache is None:
            shutil.rmtree(shared_folder(job.config, job.out), ignore_errors=True)
        return notes


def _unheard(line: str) -> None:
    """Say nothing."""


def _report(job: _Job, tracker: Tracker, digest: str, say: _Say) -> None:
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
