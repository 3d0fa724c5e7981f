"""Model + batches → labels and logits → the numbers of ``metrics.json``.

Axes: ``N`` rows, ``B`` rows of a batch.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.errors import DataError
from recembed.evaluation.checks import Floats, check_rows
from recembed.evaluation.intervals import Interval, bootstrap_auc, delong_interval
from recembed.evaluation.metrics import auc, calibration, gauc, log_loss, normalised_entropy, sigmoid

__all__ = ["evaluation_mode", "point_metrics", "predict_logits", "summarise"]

_BOOTSTRAP_ROWS = 200_000


def summarise(
    labels: ArrayLike, logits: ArrayLike, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 200
) -> dict[str, Any]:
    """Return every metric of one evaluation.

    Keys: ``auc``, ``logloss``, ``ne``, ``calibration``, ``n``, ``positives``, ``auc_low``, ``auc_high`` (95 %),
    with ``groups`` also ``gauc``, ``gauc_groups``, ``gauc_groups_dropped``, and ``warnings``, a list of sentences.
    A metric the rows do not define (all labels equal) is NaN and has a warning, so a tiny slice stops no run.

    The interval of AUC is bootstrapped. Above 200,000 rows, or with ``resamples=0``, it is DeLong's, which costs
    one sort and differs little at that size. With ``groups`` both take the rows of a group together.

    Args:
        labels: 0 or 1, ``[N]``.
        logits: ``[N]``.
        groups: The group of each row (user ids), ``[N]``.
        seed: Seed of the bootstrap.
        resamples: Resamples of the bootstrap.

    Raises:
        DataError: no rows, other shapes, a label that is not 0 or 1, or a NaN logit.

    >>> metrics = summarise([0, 1, 0, 1], [-1.0, 0.0, 0.5, 2.0])
    >>> metrics["auc"], metrics["n"], metrics["positives"], metrics["warnings"]
    (0.75, 4, 2, [])
    """
    y, x = check_rows(labels, logits, "logits")
    values, warnings = point_metrics(y, x)
    interval = _auc_interval(y, x, groups, seed, resamples, warnings)
    result: dict[str, Any] = values | {"n": len(y), "positives": int(y.sum())}
    result |= {"auc_low": interval.low, "auc_high": interval.high}
    if groups is not None:
        result |= _grouped(y, x, groups, warnings)
    return result | {"warnings": warnings}


def point_metrics(labels: Floats, logits: Floats) -> tuple[dict[str, float], list[str]]:
    """Return ``auc``, ``logloss``, ``ne`` and ``calibration`` without intervals, and a warning for each NaN."""
    metrics: dict[str, Callable[[], float]] = {
        "auc": lambda: auc(labels, logits),
        "logloss": lambda: log_loss(labels, logits),
        "ne": lambda: normalised_entropy(labels, logits),
        "calibration": lambda: calibration(labels, sigmoid(logits)),
    }
    values, warnings = dict.fromkeys(metrics, float("nan")), []
    for name, metric in metrics.items():
        try:
            values[name] = metric()
        except DataError as error:
            warnings.append(str(error))
    return values, warnings


def predict_logits(
    model: Callable[[Batch], Tensor], loader: Iterable[Batch], device: torch.device | str = "cpu", *, label: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run ``model(batch) -> logits [B]`` over all batches, without gradients and in evaluation mode.

    Every module gets its own training mode back, also after an error. Logits stay on the device until the end, so
    no batch waits for a copy.

    Args:
        model: A module, or any function of a batch.
        loader: The batches, read once.
        device: Where the model is.
        label: The column of ``Batch.labels`` to return.

    Returns:
        Labels and logits, both float32 ``[N]`` in the order of the loader.

    Raises:
        DataError: the loader has no rows, or the model returns another shape than ``[B]``.
    """
    labels: list[Tensor] = []
    logits: list[Tensor] = []
    with evaluation_mode(model), torch.no_grad():
        for batch in loader:
            output = model(batch.to(device))
            if output.shape != (len(batch),):
                raise DataError(f"model gave logits {list(output.shape)}: expected [{len(batch)}], one per row")
            labels.append(batch.labels[:, label])
            logits.append(output.detach())
    if not sum(len(part) for part in labels):
        raise DataError("the loader gave no rows to evaluate; check the split and the path of the data")
    return torch.cat(labels).float().cpu().numpy(), torch.cat(logits).float().cpu().numpy()


@contextmanager
def evaluation_mode(model: object) -> Iterator[None]:
    """Put every module of ``model`` in evaluation mode, and back as each was (frozen parts stay frozen)."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])
        for module, training in modes:
            module.training = training


def _auc_interval(
    labels: Floats, logits: Floats, groups: ArrayLike | None, seed: int, resamples: int, warnings: list[str]
) -> Interval:
    try:
        if resamples == 0 or len(labels) > _BOOTSTRAP_ROWS:
            return delong_interval(labels, logits, groups=groups)
        return bootstrap_auc(labels, logits, groups=groups, resamples=resamples, seed=seed)
    except DataError as error:
        if str(error) not in warnings:  # an undefined AUC is there already
            warnings.append(str(error))
        return Interval(float("nan"), float("nan"), float("nan"))


def _grouped(labels: Floats, logits: Floats, groups: ArrayLike, warnings: list[str]) -> dict[str, float]:
    try:
        grouped = gauc(labels, logits, groups)
    except DataError as error:
        warnings.append(str(error))
        return {"gauc": float("nan"), "gauc_groups": 0, "gauc_groups_dropped": len(np.unique(np.asarray(groups)))}
    return {"gauc": grouped.value, "gauc_groups": grouped.used, "gauc_groups_dropped": grouped.dropped}
