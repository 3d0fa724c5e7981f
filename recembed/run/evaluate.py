"""Model + rows → the metrics, slices and predictions of one part of the data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from recembed.config import RunConfig
from recembed.data import EncodedData, Loader
from recembed.data.keys import to_keys
from recembed.evaluation import by_frequency, by_unseen, evaluation_mode, predict_logits, summarise
from recembed.models import CTRModel
from recembed.schema.feature import Schema

__all__ = ["PartResult", "cold_metrics", "evaluate_part", "part_result", "score_rows", "user_keys"]


@dataclass(frozen=True)
class PartResult:
    """What one part of the data says about a model.

    Attributes:
        metrics: See ``recembed.evaluation.summarise``; beside it ``unseen``, the count of unseen ids by feature, and
            ``cold_items``, the same metrics of the rows whose item had few training rows, or none (see ``cold_metrics``).
        slices: Metrics by training frequency of the ids of a feature, and by unseen ids.
        labels: float32 ``[N]``.
        logits: float32 ``[N]``.
        groups: int64 ``[N]``, the key of each row's user, or None.
    """

    metrics: dict[str, Any]
    slices: dict[str, pl.DataFrame]
    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray | None

    def predictions(self) -> pl.DataFrame:
        """Return labels and logits (and the users' keys), one line a row."""
        frame = pl.DataFrame({"label": self.labels, "logit": self.logits})
        return frame if self.groups is None else frame.with_columns(user=pl.Series(self.groups))


def evaluate_part(
    model: CTRModel, data: EncodedData, config: RunConfig, *, groups: np.ndarray | None = None
) -> PartResult:
    """Score every row of ``data`` and measure.

    Args:
        model: A trained model.
        data: The rows, encoded for it.
        config: The run: batch size, seed, slices.
        groups: int64 ``[N]``, see ``user_keys``.
    """
    loader = Loader(data, config.training.batch_size, shuffle=False, seed=0)
    return part_result(*predict_logits(model, loader), data, config, groups=groups)


def part_result(
    labels: np.ndarray, logits: np.ndarray, data: EncodedData, config: RunConfig, *, groups: np.ndarray | None = None
) -> PartResult:
    """Measure rows that were scored; see ``evaluate_part``.

    Shapes:
        labels, logits: float32 ``[N]``, in the order of ``data``.
    """
    options = config.evaluation
    metrics = summarise(labels, logits, groups, seed=config.training.seed, resamples=options.resamples)
    metrics["unseen"] = dict(data.unseen)
    metrics |= cold_metrics(labels, logits, data, config, groups=groups)
    slices = {f"frequency_{name}": by_frequency(labels, logits, data.train_counts(name)) for name in options.slices}
    known = [f.name for f in data.fitted.schema.features if f.kind != "numeric" and data.fitted.vocabulary_of(f.name)]
    if known:
        slices["unseen"] = by_unseen(labels, logits, {name: data.unseen_rows(name) for name in known})
    return PartResult(metrics, slices, labels, logits, groups)


def cold_metrics(
    labels: np.ndarray, logits: np.ndarray, data: EncodedData, config: RunConfig, *, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """Return ``cold_items``: the metrics over the rows of items that training knows little of, or nothing.

    ``under_K`` (K is ``evaluation.few``) holds the rows of items with fewer training rows than that, unseen ones among
    them; ``unseen`` those of items that are not in the vocabulary, ``from_K`` all but ``under_K``. A slice without rows has
    ``n`` 0 and nothing else.
    Empty where the schema has no categorical item with a vocabulary.
    """
    item = data.fitted.schema.role("item")
    if item is None or item.kind != "categorical" or data.fitted.vocabulary_of(item.name) is None:
        return {}
    options = config.evaluation
    rare = data.train_counts(item.name) < options.few
    slices = {f"under_{options.few}": rare, "unseen": data.unseen_rows(item.name), f"from_{options.few}": ~rare}
    found: dict[str, Any] = {}
    for name, rows in slices.items():
        found[name] = {"n": 0}
        if rows.any():
            own = None if groups is None else groups[rows]
            seed, resamples = config.training.seed, options.resamples
            found[name] = summarise(labels[rows], logits[rows], own, seed=seed, resamples=resamples)
    return {"cold_items": found}


def user_keys(frame: pl.LazyFrame, schema: Schema) -> np.ndarray | None:
    """Return the raw 64-bit key of each row's user, int64 ``[N]``, or None where the schema has no user.

    Vocabulary ids will not do: all unseen users share one, and would count as a single user.
    """
    user = schema.role("user")
    if user is None or user.kind != "categorical":
        return None
    return to_keys(frame.select(user.source).collect().to_series())


def score_rows(model: CTRModel, data: EncodedData, batch_size: int) -> np.ndarray:
    """Return the logits of rows that need no labels, float32 ``[N]``."""
    with evaluation_mode(model), torch.no_grad():
        logits = [model(batch) for batch in Loader(data, batch_size, shuffle=False, seed=0)]
    return torch.cat(logits).float().cpu().numpy()
