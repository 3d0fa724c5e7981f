"""What a step minimises: the only place that knows logits and labels."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional as F

from recembed.batch import Batch

__all__ = ["AddsLoss", "MovesRows", "Objective", "binary_logloss"]

Objective = Callable[[nn.Module, Batch], Tensor]
"""``(model, batch) -> loss``, a scalar with gradient."""


@runtime_checkable
class AddsLoss(Protocol):
    """A module inside the model that has a word to say on the loss: penalties, codebooks."""

    def take_auxiliary_loss(self) -> Tensor | None:
        """Return the scalar to add to the objective's loss of this step, once; None where there is none."""


@runtime_checkable
class MovesRows(Protocol):
    """A module inside the model that moves rows before training reads them: admission, rounding, pruning.

    Attributes:
        rows_stay: Move none now: the batch is not one that trains them.
    """

    rows_stay: bool


def binary_logloss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean log loss in float32: of the first label for logits ``[B]``, of all labels for ``[B, L]``."""
    logits: Tensor = model(batch)
    labels = batch.labels[:, 0] if logits.ndim == 1 else batch.labels
    return F.binary_cross_entropy_with_logits(logits.float(), labels)
