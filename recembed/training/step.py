"""One optimiser step."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.errors import ConfigError, TrainingError
from recembed.evaluation.evaluate import evaluation_mode
from recembed.rows import RowStore, decay_rows
from recembed.training.bilevel import BilevelSearch, staying
from recembed.training.config import TrainingConfig
from recembed.training.gradients import batch_statistics, gradient_norm, sum_gradients
from recembed.training.nonfinite import find_nonfinite
from recembed.training.objectives import AddsLoss, MovesRows, Objective
from recembed.training.pieces import processes_of
from recembed.training.state import load_optimizer, optimizer_tensors

__all__ = ["Stepper"]


class Stepper:
    """Moves the weights by one batch: rows inside backward, dense parameters by their optimiser.

    Several processes take a step together, each with its rows of the global batch, whose mean loss they go down.

    Args:
        model: The model.
        objective: What is minimised.
        config: Settings.
        steps: Steps of the whole run, for the schedule.
        device: Where the model is.
        search: Parameters that other batches move, before each step.

    Attributes:
        processes: Those that take steps together.
        stop: Whether any of them asked to stop, at the last step.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        config: TrainingConfig,
        steps: int,
        device: torch.device,
        search: BilevelSearch | None = None,
    ) -> None:
        config.schedule.check(steps)
        self.search = search
        if search is not None:
            search.begin(config)
        self.model, self.objective, self.config, self.steps, self.device = model, objective, config, steps, device
        self.optimizer = config.dense_optimizer.build(model.parameters())
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._adding = [module for module in model.modules() if isinstance(module, AddsLoss)]
        self._moving = [module for module in model.modules() if isinstance(module, MovesRows)]
        stores = [module for module in model.modules() if isinstance(module, RowStore)]
        self._stores = [(store, store.optimizer.learning_rate) for store in stores if store.optimizer]
        self._factor: float | None = None
        self.processes, self.stop = processes_of(model), False
        self._statistics = batch_statistics(model) if self.processes.count > 1 else []

    def __call__(
        self, batch: Batch, step: int, *, stop: bool = False, meanwhile: Callable[[], None] | None = None
    ) -> Tensor:
        """Do step number ``step`` (from 0) and return the loss of all processes, detached; ``stop`` is told to all.

        ``meanwhile`` is called between the forward and the backward pass.

        Raises:
            TrainingError: the loss is not finite; rows and parameters are as before the step.
        """
        self._set_learning_rates(self.config.schedule.factor(step, self.steps))
        if self.search is not None:
            self._search(self.search, step, stop)
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        loss, mean = self._finite_loss(batch, step, stop)
        if meanwhile is not None:
            meanwhile()
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(self.processes, self._parameters, self._statistics)
        if self.optimizer is not None:
            if self.config.clip_norm is not None:
                self._clip(self.config.clip_norm, step)
            self.optimizer.step()
        for store, _ in self._stores:
            decay_rows(store, step, window=max(1024, self.config.batch_size * len(store.tables)))
        return mean

    def _search(self, search: BilevelSearch, step: int, stop: bool) -> None:
        batch = search.next_batch()
        if self.device.type != "cpu":
            batch = batch.to(self.device)
        with search.in_training(), staying(self._moving):
            search.move(self._finite_loss(batch, step, stop)[0], self.processes)

    def _finite_loss(self, batch: Batch, step: int, stop: bool) -> tuple[Tensor, Tensor]:
        """Return the loss of this process, with gradient, and the mean over the rows of all."""
        loss = self.loss(batch)
        mean = loss.detach() if self.processes.count == 1 else self._mean(loss, len(batch), stop)
        if self.device.type == "cpu" and not math.isfinite(mean.item()):  # elsewhere .item() would make the step wait
            raise self.explain(batch, step, mean.item())
        return loss, mean

    def _mean(self, loss: Tensor, rows: int, stop: bool) -> Tensor:
        own = torch.tensor([0.0, rows, stop], dtype=torch.float64, device=loss.device)
        if rows:  # the mean of no rows is NaN
            own[0] = loss.detach().double() * rows
        summed = self.processes.total(own)
        self.processes.share, self.stop = rows / float(summed[1]), bool(summed[2])
        return summed[0] / summed[1]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what a step depends on beside the weights: the optimisers' states, and positions JSON can hold."""
        tensors = optimizer_tensors(self.model, self.optimizer)
        if self.search is None:
            return tensors, {}
        tensors |= optimizer_tensors(self.model, self.search.optimizer, "search")
        return tensors, {"search": self.search.batches.state()}

    def resume(self, tensors: Mapping[str, Tensor], positions: Mapping[str, Any]) -> None:
        """Go back to a ``state``; both may hold more than this."""
        load_optimizer(self.model, self.optimizer, tensors)
        if self.search is not None:
            load_optimizer(self.model, self.search.optimizer, tensors, "search")
            self.search.batches.resume(positions["search"])

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, with gradient: the objective's and what modules add to it."""
        with self._autocast():
            loss = self.objective(self.model, batch)
        if loss.ndim:
            raise ConfigError(f"the objective gave a loss of shape {list(loss.shape)}: expected a scalar, say its mean")
        for module in self._adding:
            added = module.take_auxiliary_loss()
            loss = loss if added is None else loss + added
        return loss

    def explain(self, batch: Batch, step: int, loss: float) -> TrainingError:
        """Return the error that names the step and where the value that is not finite began."""
        where = find_nonfinite(self.model, batch, lambda: self.loss(batch))
        return TrainingError(f"step {step + 1}: the loss is {loss}; it began in {where}")

    def explain_logits(self, batches: Iterable[Batch], step: int) -> TrainingError:
        """Return the error for validation rows whose logits are NaN after ``step`` steps."""
        with evaluation_mode(self.model), torch.no_grad():
            for batch in batches:
                given = batch.to(self.device)
                if any(self.processes.tell(bool(torch.isnan(self.model(given)).any()))):
                    where = find_nonfinite(self.model, given, partial(self.model, given))
                    return TrainingError(f"step {step}: logits of validation rows are NaN; it began in {where}")
        return TrainingError(f"step {step}: logits of validation rows were NaN, but not when computed once more")

    def _autocast(self) -> AbstractContextManager[object]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _clip(self, clip_norm: float, step: int) -> None:
        norm = gradient_norm(self.processes, self._parameters)
        if self.device.type == "cpu" and not math.isfinite(norm.item()):
            named = ((n, p.grad) for n, p in self.model.named_parameters() if p.grad is not None)
            name = next((n for n, gradient in named if not torch.isfinite(gradient).all()), "?")
            raise TrainingError(
                f"step {step + 1}: the gradient is not finite; its first parameter is {name!r}; lower "
                "training.dense_optimizer.learning_rate, or look at the features whose numbers are very large"
            )
        nn.utils.clip_grads_with_norm_(self._parameters, clip_norm, norm, foreach=True)

    def _set_learning_rates(self, factor: float) -> None:
        if factor == self._factor:
            return
        self._factor = factor
        if self.optimizer is not None:
            self.config.dense_optimizer.set_learning_rates(self.optimizer, factor)
        if self.search is not None:
            self.search.set_learning_rates(factor)
        for store, learning_rate in self._stores:
            store.set_learning_rate(learning_rate * factor)
