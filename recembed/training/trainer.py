"""``Trainer``: fits any module on batches; it knows no model and no embedding method."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from recembed.batch import Batch
from recembed.rows.freed_memory import keep_freed_memory
from recembed.training.batches import Batches
from recembed.training.bilevel import BilevelSearch
from recembed.training.checkpointer import Checkpointer
from recembed.training.config import TrainingConfig
from recembed.training.interrupt import Interrupt
from recembed.training.loop import Stopped, TrainingLoop
from recembed.training.objectives import Objective, binary_logloss
from recembed.training.progress import ProgressBar
from recembed.training.step import Stepper
from recembed.training.tracking import NullTracker, Tracker

__all__ = ["TrainResult", "Trainer"]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a training went.

    Attributes:
        stopped: Why it ended.
        steps: Optimiser steps, those before a resume included.
        history: One record per evaluation: ``step``, ``epoch``, ``train_loss`` (mean since the one before), metrics.
        metric: Which metric tells the best evaluation.
        best_value, best_step, best_epoch: That evaluation; None where there was none.
        samples_per_second: Over training steps, the loader included, evaluation and checkpoints left out.
        seconds: Altogether, those before a resume included.
        warnings: What the user should know.
    """

    stopped: Stopped
    steps: int
    history: list[dict[str, float]]
    metric: str
    best_value: float | None
    best_step: int | None
    best_epoch: int | None
    samples_per_second: float
    seconds: float
    warnings: list[str]


class Trainer:
    """Fits a model.

    Rows move inside backward by their store's rule; the trainer only sets the store's learning rate. All other
    parameters belong to the dense optimiser. The tracker is told numbers; opening and closing it is the caller's.

    Args:
        model: Any module that takes a ``Batch``; it lives on ``device`` already.
        config: Settings.
        tracker: Who is told losses and metrics; None tells nobody.
        device: Where the model is.
        progress: Show a progress bar; None shows it on a terminal only.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig | None = None,
        *,
        tracker: Tracker | None = None,
        device: torch.device | str = "cpu",
        progress: bool | None = None,
    ) -> None:
        self.model = model
        self.config = config or TrainingConfig()
        self.tracker = tracker or NullTracker()
        self.device = torch.device(device)
        self.progress = progress

    def fit(
        self,
        train: Batches,
        valid: Iterable[Batch] | None = None,
        *,
        objective: Objective = binary_logloss,
        checkpoint: Checkpointer | None = None,
        resume: bool = False,
        search: BilevelSearch | None = None,
    ) -> TrainResult:
        """Train, and leave the model with its best weights, in evaluation mode.

        Processes whose row stores train together call it alike, each with its own slice of every batch.

        Evaluation takes place at the end of each epoch and every ``evaluate_every`` steps. Without ``checkpoint`` the
        best weights are kept in memory, a second copy of all rows. Ctrl-C or SIGTERM ends the training after its
        step: the last checkpoint is written and the weights stay as they are. The process keeps the memory that it
        frees from then on (``rows.freed_memory``).

        Args:
            train: Training batches, with a position that can be saved.
            valid: Validation batches; None trains to the end and keeps the last weights.
            objective: ``(model, batch) -> loss``; under bf16 it runs in autocast.
            checkpoint: Where the last and the best checkpoint go.
            resume: Go on from the last checkpoint where there is one; the result is bit for bit that of a run
                that was never cut (on CPU, with as many threads).
            search: Parameters that other batches move, and their batches.

        Raises:
            TrainingError: a loss is not finite; names the step and where it began.
            CheckpointError: a checkpoint cannot be written, or the one to resume from does not fit.
            ConfigError: the schedule's warm-up is longer than the run.
            TrainingError: the processes differ in the number of batches, or one does not answer.
        """
        keep_freed_memory()
        steps = self.config.epochs * len(train)
        stepper = Stepper(self.model, objective, self.config, steps, self.device, search)
        interrupt = Interrupt(together=stepper.processes.count > 1)
        with _threads(self.config.threads), interrupt, nullcontext() if search is None else search:
            loop = TrainingLoop(stepper, train, valid, checkpoint=checkpoint, tracker=self.tracker, interrupt=interrupt)
            try:
                loop.begin(resume=resume)
                self.model.train()
                with ProgressBar(steps, loop.state.step, shown=self._shown(stepper.processes.rank)) as bar:
                    stopped = loop.loop(bar)
                loop.finish(stopped)
            finally:
                if checkpoint is not None:
                    checkpoint.close()
            self.model.eval()
        return _result(loop, stopped)

    def _shown(self, rank: int) -> bool | None:
        return False if rank else self.progress


def _result(loop: TrainingLoop, stopped: Stopped) -> TrainResult:
    state, best = loop.state, loop.state.best
    return TrainResult(
        stopped=stopped,
        steps=state.step,
        history=state.history,
        metric=loop.rule.metric,
        best_value=best.value if best else None,
        best_step=best.step if best else None,
        best_epoch=best.epoch if best else None,
        samples_per_second=state.samples / state.training_seconds if state.training_seconds else 0.0,
        seconds=state.seconds,
        warnings=state.warnings,
    )


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
