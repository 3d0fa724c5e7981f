"""The training loop: steps, evaluations, checkpoints and their bookkeeping."""

import math
import time
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.errors import CheckpointError
from recembed.evaluation.checks import check_rows
from recembed.evaluation.evaluate import point_metrics
from recembed.training.batches import Batches
from recembed.training.checkpointer import Checkpointer
from recembed.training.config import EarlyStopping, TrainingConfig
from recembed.training.gradients import stream_gradients
from recembed.training.interrupt import Interrupt
from recembed.training.look_ahead import LookAhead
from recembed.training.pieces import weights
from recembed.training.predictions import gathered_logits
from recembed.training.progress import ProgressBar
from recembed.training.state import Best, RunState, random_tensors, restore_random, seed_everything
from recembed.training.step import Stepper
from recembed.training.tracking import Tracker

__all__ = ["Stopped", "TrainingLoop"]

Stopped = Literal["finished", "early_stopping", "interrupted"]

_LOG_EVERY = 50


class TrainingLoop:
    """One run on its way; ``Trainer.fit`` builds it.

    Args:
        stepper: Does the steps.
        train, valid: The data.
        checkpoint: Where checkpoints go, or None.
        tracker: Who is told.
        interrupt: Whether the user wants to stop.
    """

    def __init__(
        self,
        stepper: Stepper,
        train: Batches,
        valid: Iterable[Batch] | None,
        *,
        checkpoint: Checkpointer | None,
        tracker: Tracker,
        interrupt: Interrupt,
    ) -> None:
        self.stepper, self.train, self.valid = stepper, train, valid
        self.checkpoint, self.tracker, self.interrupt = checkpoint, tracker, interrupt
        self.config: TrainingConfig = stepper.config
        self.model: nn.Module = stepper.model
        self.rule = self.config.early_stopping or EarlyStopping()
        self.state = RunState()
        self.ahead = LookAhead(self.model, train, stepper.device, stepper.processes)
        self._per_epoch = len(train)
        self._losses: list[Tensor] = []
        self._last_batch: Batch | None = None
        self._saved = (-1, -1)
        self._best_weights: dict[str, Tensor] | None = None
        self._shown_at = self._mark = 0.0

    @property
    def epoch(self) -> int:
        """Epochs so far, the started one included."""
        return -(-self.state.step // self._per_epoch)

    def begin(self, *, resume: bool) -> None:
        """Seed the generators, or go back to where the last checkpoint was written."""
        processes = self.stepper.processes
        processes.agree("the number of batches", self._per_epoch)
        seed_everything((self.config.seed + processes.rank) % 2**32)
        if not (resume and self.checkpoint and processes.first_does(self.checkpoint.has_last)):
            return
        manifest, tensors, warning = self.checkpoint.load_last(self.model)
        self.stepper.resume(tensors, manifest.progress)
        self.state = RunState.from_json(manifest.progress["run"])
        self.state.warnings += [warning] if warning else []
        self._saved = (self.state.step, self.state.evaluated)
        self.train.resume(manifest.progress["data"])
        if manifest.progress.get("batches", self._per_epoch) != self._per_epoch:
            raise CheckpointError(
                f"the run began with {manifest.progress['batches']} batches an epoch, now there are {self._per_epoch}: a "
                "last batch of fewer rows than processes is left out; go on with as many processes as before"
            )
        restore_random(tensors, processes.rank)
        best = self.state.best
        if best and best.step == self.state.step != processes.first_does(self.checkpoint.best_step):
            self.checkpoint.keep_last_as_best()  # the run was killed between the two

    def loop(self, bar: ProgressBar) -> Stopped:
        """Train to the end, to an early stop or to an interruption; return which."""
        started = time.perf_counter() - self.state.seconds
        try:
            return self._loop(bar, started)
        finally:
            self.state.seconds = time.perf_counter() - started

    def _loop(self, bar: ProgressBar, started: float) -> Stopped:
        state = self.state
        if self._pause_is_due():
            self._pause(bar)
        for epoch in range(state.step // self._per_epoch, self.config.epochs):
            if self.interrupt.asked or self._has_waited_enough():
                break
            self.train.set_epoch(epoch)
            self._mark = time.perf_counter()
            for batch in self.ahead:
                self._step(batch, bar)
                if self._pause_is_due() and not self.interrupt.asked:
                    state.seconds = time.perf_counter() - started
                    self._pause(bar)
                elif self.config.checkpoint_every and state.step % self.config.checkpoint_every == 0:
                    self._save()
                if self.interrupt.asked or self._has_waited_enough():
                    break
                self._mark = time.perf_counter()
        self._flush()
        if self.interrupt.asked:
            self._save()
            return "interrupted"
        return "early_stopping" if self._has_waited_enough() else "finished"

    def _step(self, batch: Batch, bar: ProgressBar) -> None:
        state = self.state
        self._losses.append(self.stepper(batch, state.step, stop=self.interrupt.heard, meanwhile=self.ahead.wait))
        self.interrupt.agree(self.stepper.stop)
        self._last_batch = batch
        state.step += 1
        state.samples += round(len(batch) / self.stepper.processes.share) if len(batch) else 0
        if len(self._losses) >= _LOG_EVERY:
            self._flush()
        now = time.perf_counter()
        state.training_seconds += now - self._mark
        self._mark = now
        if bar.shown and now - self._shown_at > 0.1:
            self._shown_at = now
            self._show(bar)

    def _show(self, bar: ProgressBar) -> None:
        mean = self.state.loss_sum / self.state.loss_count if self.state.loss_count else math.nan
        loss = self._losses[-1].item() if self._losses else mean
        speed = self.state.samples / max(self.state.training_seconds, 1e-9)
        bar.advance(self.state.step, epoch=f"{self.epoch}/{self.config.epochs}", loss=loss, samples_per_second=speed)

    def _flush(self) -> None:
        """Hand the losses and gradients since the last time to the tracker, with one copy of losses from the device."""
        if not self._losses:
            return
        losses = torch.stack(self._losses).float().tolist()
        self._losses.clear()
        for step, loss in enumerate(losses, start=self.state.step - len(losses) + 1):
            if not math.isfinite(loss) and self._last_batch is not None:
                raise self.stepper.explain(self._last_batch, step - 1, loss)
            self.tracker.log({"train/loss": loss}, step)
            self.state.loss_sum += loss  # one by one: the same bits wherever a run was cut
        self.state.loss_count += len(losses)
        self.tracker.log(stream_gradients(self.model, len(losses)), self.state.step)

    def _pause_is_due(self) -> bool:
        step, every = self.state.step, self.config.evaluate_every
        due = step % self._per_epoch == 0 or (every is not None and step % every == 0)
        return due and step != self.state.evaluated

    def _has_waited_enough(self) -> bool:
        return self.config.early_stopping is not None and self.state.waited >= self.config.early_stopping.patience

    def _pause(self, bar: ProgressBar) -> None:
        """Evaluate and write a checkpoint."""
        self._flush()
        better = self.valid is not None and self._evaluate(self.valid, bar)
        if self.interrupt.asked:
            return  # the evaluation may be of some rows only: it is done again on resuming
        self.state.evaluated = self.state.step
        self._save()
        if better and self.checkpoint:
            self.checkpoint.keep_last_as_best()
        elif better and self.state.step < self.config.epochs * self._per_epoch:
            self._best_weights = {name: values.detach().clone() for name, values in weights(self.model).items()}

    def _evaluate(self, valid: Iterable[Batch], bar: ProgressBar) -> bool:
        """Evaluate on the validation rows; return whether this is the best so far."""
        state = self.state
        metrics, warnings = self._measure(valid)
        if self.interrupt.asked:
            return False
        state.warnings += [warning for warning in warnings if warning not in state.warnings]
        train_loss = state.loss_sum / max(state.loss_count, 1)
        state.loss_sum, state.loss_count = 0.0, 0
        state.history.append({"step": state.step, "epoch": self.epoch, "train_loss": train_loss, **metrics})
        speed = state.samples / max(state.training_seconds, 1e-9)
        logged = {f"valid/{name}": value for name, value in metrics.items()}
        self.tracker.log({**logged, "train/mean_loss": train_loss, "train/samples_per_second": speed}, state.step)
        value = metrics[self.rule.metric]
        bar.evaluated(self.rule.metric, value)
        if not self.rule.better(value, state.best.value if state.best else None):
            state.waited += 1
            return False
        state.best, state.waited = Best(value, state.step, self.epoch), 0
        return True

    def _measure(self, valid: Iterable[Batch]) -> tuple[dict[str, float], list[str]]:
        stepper = self.stepper
        labels, logits = gathered_logits(self.model, valid, stepper.processes, stepper.device, self.interrupt)
        if np.isnan(logits).any():
            raise self.stepper.explain_logits(valid, self.state.step)
        return point_metrics(*check_rows(labels, logits, "logits"))

    def finish(self, stopped: Stopped) -> None:
        """Write what is still to be written and, but for an interrupted training, load the best weights back."""
        if stopped == "interrupted":
            if self.checkpoint is not None:
                self.checkpoint.flush()
            return
        self._save()
        best = self.state.best
        if self.checkpoint is not None and best is None:
            self.checkpoint.keep_last_as_best()
            self.checkpoint.flush()
        elif best is None or best.step == self.state.step:
            if self.checkpoint is not None:
                self.checkpoint.flush()
        elif self.checkpoint is not None:
            self.checkpoint.load_best(self.model)
        elif self._best_weights is not None:
            live = weights(self.model)
            for name, values in self._best_weights.items():
                live[name].copy_(values)

    def _save(self) -> None:
        if self.checkpoint is None or self._saved == (self.state.step, self.state.evaluated):
            return
        self._flush()
        state, (tensors, progress) = self.state, self.stepper.state()
        self.checkpoint.save_last(
            self.model,
            random_tensors(self.stepper.processes.rank) | tensors,
            step=state.step,
            epoch=self.epoch,
            progress=progress | {"run": state.to_json(), "data": self.ahead.position(), "batches": self._per_epoch},
        )
        self._saved = (self.state.step, self.state.evaluated)
