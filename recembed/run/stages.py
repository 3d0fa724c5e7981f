"""Runs the stages of a run one after the other, each in its own folder and as a tracked run of its own."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from recembed.models import CTRModel
from recembed.run.files import flat_numbers
from recembed.run.stage_folder import StageFolder, StageRecord
from recembed.run.stage_work import StageWork
from recembed.training import Tracker, TrainResult, find_checkpoint, load_checkpoint
from recembed.training.checkpoint import copy_weights, load_training
from recembed.training.stages import Stage, TrainStage, WidthsStage

__all__ = ["StageRunner"]

_BEGINS = {"train": "training", "widths": "searching widths", "settle": "settling"}


class StageRunner:
    """Runs stages.

    Args:
        work: What they work with.
        model: The model at the start.
        out: The run folder.
        tracker: The tracker of the run; each stage gets a child of it.
        say: Hears a line when a stage begins, and what it found when it ends.

    Attributes:
        model: The model after the last stage that was begun.
        training: How the last training went; None before the first.
        records: The finished stages.
    """

    def __init__(
        self, work: StageWork, model: CTRModel, out: Path, tracker: Tracker, say: Callable[[str], None]
    ) -> None:
        self.work, self.model, self.tracker, self.say = work, model, tracker, say
        self.training: TrainResult | None = None
        self.records: list[StageRecord] = []
        self._checkpoint = out / "checkpoint"
        self._places = [(stage, StageFolder.of(out, stage, number)) for number, stage in enumerate(work.stages, 1)]

    def run(self, *, resume: bool) -> TrainResult:
        """Do the stages that are not finished yet, and make the last one's checkpoint the run's.

        Returns:
            How the last training went; an interrupted one is not the last.
        """
        if resume:
            self._go_back()
        for number, (stage, folder) in enumerate(self._places[len(self.records) :], start=len(self.records) + 1):
            self._first(folder.reopen)
            record = self._tracked(stage, number, folder, resume=resume)
            self.training = record.training or self.training
            if self.training is not None and self.training.stopped == "interrupted":
                return self.training
            self._first(partial(folder.finish, record))
            self.records.append(record)
            for line in record.lines():
                self.say(line)
        last = self._places[-1][1].checkpoints
        self._first(lambda: copy_weights(find_checkpoint(last), self._checkpoint / "best"))
        assert self.training is not None  # the first stage is a training
        return self.training

    def _first(self, work: Callable[[], None]) -> None:
        """Let rank 0 write, and the others wait."""
        self.work.processes.first_does(work)

    def _go_back(self) -> None:
        """Take up what finished stages left behind: weights, decisions, row states."""
        for stage, folder in self._places:
            record = self.work.processes.first_does(folder.record)
            if record is None or (record.number == record.of and record.settings != self._settings(stage)):
                break  # of the last of all more may be asked now
            self.records.append(record)
            self.training = record.training or self.training
        if self.records:
            self.say(f"stages finished before: {', '.join(record.name for record in self.records)}")
            checkpoints = self._places[len(self.records) - 1][1].checkpoints
            load_checkpoint(checkpoints, self.model, self.work.fitted)
            load_training(checkpoints / "last", self.model)
            self.model.eval()

    def _settings(self, stage: Stage) -> dict[str, Any]:
        if isinstance(stage, TrainStage):
            return stage.settings(self.work.config.training).model_dump(mode="json")
        return {}

    def _tracked(self, stage: Stage, number: int, folder: StageFolder, *, resume: bool) -> StageRecord:
        """Do one stage as a tracked run under the run's own."""
        of = f"{number} of {len(self._places)}"
        self.say(f"stage {of}, {stage.name}: {_BEGINS[stage.do]}")
        tracker = self.tracker.child(folder.run_id() if resume else None)
        params = {"stage": stage.model_dump(mode="json"), "training": self._settings(stage)}
        tracker.start(folder.path.name, params, {"recembed.stage": of})
        done = False
        try:
            self._first(lambda: folder.keep_run_id(tracker.run_id))
            started = time.perf_counter()
            record = self._do(stage, folder, tracker, resume=resume)
            seconds = record.training.seconds if record.training else time.perf_counter() - started
            steps = record.training or self.training
            tracker.log(flat_numbers({**record.found, "valid": record.metrics}), steps.steps if steps else 0)
            done = record.training is None or record.training.stopped != "interrupted"
            return replace(record, number=number, of=len(self._places), seconds=seconds)
        finally:
            tracker.end(ok=done)

    def _do(self, stage: Stage, folder: StageFolder, tracker: Tracker, *, resume: bool) -> StageRecord:
        record = StageRecord(name=stage.name, do=stage.do, settings=self._settings(stage))
        if isinstance(stage, TrainStage):
            self.model, trained = self.work.train(stage, self.model, folder, tracker, resume=resume)
            return replace(record, training=trained, metrics=_ended_with(stage, trained))
        if isinstance(stage, WidthsStage):
            found = self.work.widths(stage, self.model, folder, tracker, resume=resume)
        else:
            found = self.work.settle(self.model)
        steps = self.training.steps if self.training else 0
        checkpointer = folder.checkpointer(self.work.fitted, self.work.config)
        checkpointer.save_last(self.model, {}, step=steps, epoch=0, progress={})
        checkpointer.keep_last_as_best()
        checkpointer.flush()
        checkpointer.close()
        return replace(record, found=found, metrics=self.work.valid_metrics(self.model))


def _ended_with(stage: TrainStage, trained: TrainResult) -> dict[str, float]:
    """Return the validation metrics of the weights that a training ended with."""
    step = trained.best_step if stage.weights == "best" else trained.steps
    records = [record for record in trained.history if record["step"] == step]
    return {name: records[-1][name] for name in ("auc", "logloss", "ne", "calibration")} if records else {}
