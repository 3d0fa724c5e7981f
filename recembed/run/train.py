"""The main job: one config in, one run folder out.

A run folder holds ``config.yaml`` (effective), ``metrics.json``, ``report.parquet`` (features and splits),
``predictions_<part>.parquet``, ``slices/`` and ``checkpoint/`` (weights, optimiser, fitted schema).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recembed.training import TrainResult

__all__ = ["RunResult", "make_tracker", "train"]


@dataclass(frozen=True)
class RunResult:
    """A finished (or interrupted) run.

    Attributes:
        folder: Where it lies.
        metrics: The content of ``metrics.json``.
        training: What the trainer says: epochs, best step, why it stopped.
        url: The line that opens the tracking page; empty without tracking.
    """

    folder: Path
    metrics: dict[str, Any]
    training: TrainResult
    url: str
