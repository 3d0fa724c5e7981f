"""What came of a retrieval training."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

__all__ = ["RetrievalResult"]


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """How a training went.

    Attributes:
        stopped: Why it ended.
        epochs: Epochs done.
        steps: Steps done.
        best_epoch: Epochs after which the validation metric was best; all of them where there was no validation.
        best_value: That metric; None without validation.
        curve: One row per evaluation: ``epoch``, ``step``, ``loss``, ``seconds`` (of training steps), ``cpu_seconds``,
            ``total_seconds`` (all of it), and the metrics.
        seconds: Wall clock, those before a resume included.
        left_out: Interactions of users who have met every item, on which there is nothing to learn.
    """

    stopped: Literal["finished", "early_stopping", "interrupted"]
    epochs: int
    steps: int
    best_epoch: int
    best_value: float | None
    curve: pl.DataFrame
    seconds: float
    left_out: int
