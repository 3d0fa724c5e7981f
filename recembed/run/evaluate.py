"""Model + encoded rows → the metrics, slices and predictions of one part of the data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recembed.config import EvaluationConfig
from recembed.data import EncodedData, Loader
from recembed.evaluation import by_frequency, by_unseen, predict_logits, summarise
from recembed.models import CTRModel

__all__ = ["PartResult", "evaluate_part"]


@dataclass(frozen=True)
class PartResult:
    """What one part of the data says about a model.

    Attributes:
        metrics: See ``recembed.evaluation.summarise``; beside it ``unseen``, the unseen ids by feature.
        slices: Metrics by training frequency of the ids of a feature, and by unseen ids.
        labels: float32 ``[N]``.
        logits: float32 ``[N]``.
        groups: int64 ``[N]``, the user of each row, or None.
    """

    metrics: dict[str, Any]
    slices: dict[str, pl.DataFrame]
    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray | None

    def predictions(self) -> pl.DataFrame:
        """Return labels and logits (and groups), a row each."""
        frame = pl.DataFrame({"label": self.labels, "logit": self.logits})
        return frame if self.groups is None else frame.with_columns(group=pl.Series(self.groups))


def evaluate_part(
    model: CTRModel, data: EncodedData, config: EvaluationConfig, *, batch_size: int, seed: int = 0
) -> PartResult:
    """Score every row of ``data`` and measure."""
    loader = Loader(data, batch_size, shuffle=False, seed=seed)
    labels, logits = predict_logits(model, loader)
    user = data.fitted.schema.role("user")
    groups = data.column(user.name).astype(np.int64) if user is not None and user.kind == "categorical" else None
    metrics = summarise(labels, logits, groups, seed=seed, resamples=config.resamples)
    metrics["unseen"] = dict(data.unseen)
    slices = {f"frequency_{name}": by_frequency(labels, logits, data.train_counts(name)) for name in config.slices}
    known = [f.name for f in data.fitted.schema.categorical if data.fitted.vocabulary_of(f.name) is not None]
    if known:
        slices["unseen"] = by_unseen(labels, logits, {name: data.unseen_rows(name) for name in known})
    return PartResult(metrics, slices, labels, logits, groups)
