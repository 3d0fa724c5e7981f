"""``RetrievalTrainer``: fits an encoder of users and items on their interactions.

Axes: ``P`` interactions, ``U`` users, ``I`` items, ``D`` width.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recembed.errors import DataError
from recembed.evaluation.full_ranking import RankingResult, evaluate_ranking
from recembed.evaluation.user_items import UserItems
from recembed.retrieval.config import RetrievalTraining
from recembed.retrieval.encoder import Encoder
from recembed.retrieval.result import RetrievalResult
from recembed.retrieval.state import RetrievalState, load_state, load_weights, save_state
from recembed.retrieval.step import RetrievalStep
from recembed.training.interrupt import Interrupt
from recembed.training.progress import ProgressBar
from recembed.training.tracking import NullTracker, Tracker

__all__ = ["RetrievalTrainer", "encoder_vectors"]

_LOG_EVERY = 20


class RetrievalTrainer:
    """Fits an encoder: shuffled interactions in batches, one propagation a step, Adam on everything.

    Args:
        encoder: What is trained; its graph holds training interactions only.
        train: The training interactions.
        config: Settings.
        tracker: Who is told losses and metrics.
        progress: Show a progress bar; None shows it on a terminal only.
        say: Hears a line at each evaluation.

    Raises:
        DataError: every user has met every item, so there is no negative.
    """

    def __init__(
        self,
        encoder: Encoder,
        train: UserItems,
        config: RetrievalTraining,
        *,
        tracker: Tracker | None = None,
        progress: bool | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        assert isinstance(encoder, nn.Module)
        self.encoder: nn.Module = encoder
        self.train, self.config = train, config
        self.tracker, self.progress, self.say = tracker or NullTracker(), progress, say
        self.step = RetrievalStep(encoder, train, config)
        users = train.users
        learnable = ~np.isin(users, self.step.sampler.users_without)
        self.users, self.items = users[learnable], train.items[learnable]
        self.left_out = len(train) - len(self.users)
        if not len(self.users):
            raise DataError(
                f"all {train.num_users} users have met all {train.num_items} items, so there is no negative to learn from; "
                "give more items"
            )
        self.state = RetrievalState()

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all interactions are read once."""
        return -(-len(self.users) // self.config.batch_size)

    def fit(
        self,
        valid: UserItems | None = None,
        *,
        epochs: int | None = None,
        k: Sequence[int] = (20,),
        folder: Path | None = None,
        resume: bool = False,
    ) -> RetrievalResult:
        """Train, and leave the encoder with its best weights, in evaluation mode.

        Args:
            valid: Interactions to evaluate on; the training ones are left out of the lists.
            epochs: How many, in place of the config's.
            k: Lengths of the lists to judge.
            folder: Where checkpoints go, ``last.safetensors`` and ``best.safetensors``.
            resume: Go on from the last one, bit for bit.
        """
        epochs, rule = epochs or self.config.epochs, self.config.early_stopping
        if valid is not None and rule is not None:
            k = sorted({*k, rule.length})
        self.config.schedule.check(self.steps_per_epoch * self.config.epochs)
        if resume and folder is not None:
            saved = load_state(folder / "last.safetensors", self.encoder, self.step.optimizer)
            self.state = saved or self.state
        best: dict[str, Tensor] | None = None
        state = self.state
        started = time.perf_counter() - state.total_seconds
        bar = ProgressBar(self.steps_per_epoch * epochs, state.step, shown=self.progress)
        with Interrupt() as interrupt, bar:
            while state.epoch < epochs and not self._has_waited(valid) and not interrupt.asked:
                loss = self._epoch(bar, epochs, interrupt)
                if loss is None:
                    break  # the epoch is done again on resuming
                state.total_seconds = time.perf_counter() - started
                due = state.epoch % self.config.evaluate_every == 0 or state.epoch == epochs
                better = valid is not None and due and self._evaluate(valid, k, loss, bar)
                if folder is not None:
                    save_state(folder / "last.safetensors", self.encoder, state, self.step.optimizer)
                    if better:
                        save_state(folder / "best.safetensors", self.encoder, state, None)
                elif better:
                    best = {name: values.clone() for name, values in self.encoder.state_dict().items()}
        return self._finish(valid, best, folder, interrupted=interrupt.asked, epochs=epochs)

    def _finish(
        self,
        valid: UserItems | None,
        best: dict[str, Tensor] | None,
        folder: Path | None,
        *,
        interrupted: bool,
        epochs: int,
    ) -> RetrievalResult:
        state = self.state
        stopped: Literal["finished", "early_stopping", "interrupted"] = "finished"
        if interrupted:
            stopped = "interrupted"
        elif state.epoch < epochs:
            stopped = "early_stopping"
        if not interrupted and valid is not None and state.best_epoch and state.best_epoch != state.epoch:
            if folder is not None:
                load_weights(folder / "best.safetensors", self.encoder)
            elif best is not None:
                self.encoder.load_state_dict(best)
        self.encoder.eval()
        return RetrievalResult(
            stopped=stopped,
            epochs=state.epoch,
            steps=state.step,
            best_epoch=state.best_epoch or state.epoch,
            best_value=state.best_value if state.best_epoch else None,
            curve=pl.DataFrame(state.history),
            seconds=state.total_seconds,
            left_out=self.left_out,
        )

    def _has_waited(self, valid: UserItems | None) -> bool:
        rule = self.config.early_stopping
        return valid is not None and rule is not None and self.state.waited >= rule.patience

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.config.seed, epoch, 1)).permutation(len(self.users))

    def _epoch(self, bar: ProgressBar, epochs: int, interrupt: Interrupt) -> float | None:
        """Train through all interactions once; return the mean loss, None where the user broke in."""
        state, size = self.state, self.config.batch_size
        self.encoder.train()
        if hasattr(self.encoder, "start_epoch"):
            self.encoder.start_epoch(state.epoch)  # type: ignore[operator]
        order = self._order(state.epoch)
        losses: list[Tensor] = []
        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            factor = self.config.schedule.factor(state.step, self.steps_per_epoch * self.config.epochs)
            losses.append(self.step(self.users[chosen], self.items[chosen], state.step, factor))
            state.step += 1
            if len(losses) % _LOG_EVERY == 1:
                self._tell(losses[-1].item(), bar, epochs)
            if interrupt.asked:
                return None
        state.epoch += 1
        state.seconds += time.perf_counter() - wall
        state.cpu_seconds += time.process_time() - cpu
        mean = torch.stack(losses).mean().item()
        self.step.check(mean, state.step)
        return mean

    def _tell(self, loss: float, bar: ProgressBar, epochs: int) -> None:
        state = self.state
        self.step.check(loss, state.step)
        self.tracker.log({"train/loss": loss}, state.step)
        speed = self.config.batch_size * state.step / max(state.seconds, 1e-9) if state.epoch else 0.0
        bar.advance(state.step, epoch=f"{state.epoch + 1}/{epochs}", loss=loss, samples_per_second=speed)

    def _evaluate(self, valid: UserItems, k: Sequence[int], loss: float, bar: ProgressBar) -> bool:
        """Measure on the validation interactions; return whether this is the best so far."""
        state = self.state
        metrics = self.measure(valid, k).metrics
        times = {"seconds": state.seconds, "cpu_seconds": state.cpu_seconds, "total_seconds": state.total_seconds}
        state.history.append({"epoch": state.epoch, "step": state.step, "loss": loss, **times, **metrics})
        self.tracker.log({f"valid/{name.replace('@', '_at_')}": value for name, value in metrics.items()}, state.step)
        rule = self.config.early_stopping
        name = rule.metric if rule else f"recall@{max(k)}"
        bar.evaluated(name, metrics[name])
        if self.say:
            self.say(
                f"epoch {state.epoch}: loss {loss:.4f}, {name} {metrics[name]:.4f}, {state.seconds:,.0f} s of steps"
            )
        if not metrics[name] > state.best_value:
            state.waited += 1
            return False
        state.best_value, state.best_epoch, state.waited = metrics[name], state.epoch, 0
        return True

    @torch.no_grad()
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the vectors as served, of users ``[U, D']`` and of items ``[I, D']``, whose inner products rank.

        The encoder is left in evaluation mode; what the loss adds to its vectors is in ``RetrievalLoss.served``.
        """
        users, items = encoder_vectors(self.encoder, self.train.num_users)
        return self.config.loss.served(users, items, self.step.log_drawn)

    def measure(
        self, relevant: UserItems, k: Sequence[int] = (20,), *, also_seen: UserItems | None = None
    ) -> RankingResult:
        """Rank all items for every user with a relevant one; training items, and ``also_seen``, are left out."""
        users, items = self.vectors()
        seen = self.train if also_seen is None else self.train.joined(also_seen)
        return evaluate_ranking(users, items, relevant, seen=seen, k=k)


@torch.no_grad()
def encoder_vectors(encoder: nn.Module, num_users: int) -> tuple[Tensor, Tensor]:
    """Return the encoder's vectors of users ``[U, D]`` and of items ``[I, D]``; it is left in evaluation mode."""
    vectors: Tensor = encoder.eval().propagate()  # type: ignore[operator]
    return vectors[:num_users].clone(), vectors[num_users:].clone()
