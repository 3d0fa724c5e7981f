"""Bi-level training: a few parameters follow the loss of other batches than those that move the rest."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.rows import Processes
from recembed.training.batches import Batches
from recembed.training.config import TrainingConfig
from recembed.training.gradients import sum_gradients
from recembed.training.objectives import MovesRows

__all__ = ["BilevelSearch", "frozen", "staying"]


class BilevelSearch:
    """Moves ``parameters`` before every training step by the loss of one of ``batches``, and by nothing else.

    That is the first-order rule of differentiable architecture search (Liu et al., DARTS, ICLR 2019): batches of
    validation rows move what is searched, training batches move everything else, in turns. The gradient is taken of
    these parameters alone, so that no row moves, and methods count, admit and round by training batches alone. Both
    losses are of training mode: running statistics see both.

    The parameters are taken out of training (``requires_grad`` is False) between its steps; the dense optimiser of the
    training settings, a second one, moves them.

    Args:
        parameters: What is searched.
        batches: The other batches, read again and again.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], batches: Batches) -> None:
        self.parameters = list(parameters)
        self.batches = batches
        self._stream = self._forever()

    def begin(self, config: TrainingConfig) -> None:
        """Make the optimiser and take the parameters out of training."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.settings = config.dense_optimizer
        self.optimizer = self.settings.build(self.parameters)
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def set_learning_rates(self, factor: float) -> None:
        """Follow the schedule."""
        if self.optimizer is not None:
            self.settings.set_learning_rates(self.optimizer, factor)

    def next_batch(self) -> Batch:
        """Return the next of the other batches."""
        return next(self._stream)

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Compute the loss of such a batch in here: it has a gradient for the parameters then."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(False)

    def move(self, loss: Tensor, processes: Processes) -> None:
        """Move the parameters one step down the gradient of the loss of all processes; nothing else moves."""
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        sum_gradients(processes, self.parameters)
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def __enter__(self) -> "BilevelSearch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        for parameter in self.parameters:
            parameter.requires_grad_(True)

    def _forever(self) -> Generator[Batch, None, None]:
        while True:
            yield from self.batches


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Keep these parameters as they are in here: a training does not move them."""
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, trainable in zip(parameters, before, strict=True):
            parameter.requires_grad_(trainable)


@contextmanager
def staying(modules: Sequence[MovesRows]) -> Iterator[None]:
    """Keep all rows as they are in here, also where reading them in training would move them."""
    for module in modules:
        module.rows_stay = True
    try:
        yield
    finally:
        for module in modules:
            module.rows_stay = False
