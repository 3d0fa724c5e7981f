"""What a step minimises: the only place that knows logits and labels."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from recembed.batch import Batch

__all__ = ["Objective", "binary_logloss"]

Objective = Callable[[nn.Module, Batch], Tensor]
"""``(model, batch) -> loss``, a scalar with gradient."""


def binary_logloss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean log loss in float32: of the first label for logits ``[B]``, of all labels for ``[B, L]``."""
    logits: Tensor = model(batch)
    labels = batch.labels[:, 0] if logits.ndim == 1 else batch.labels
    return F.binary_cross_entropy_with_logits(logits.float(), labels)
