"""What the benchmarks measure alike: the speed of an epoch, and the peak memory of a process."""

import resource
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["peak_mb", "speeds"]

WINDOW = 20


def speeds(times: Sequence[float], rows: int, batch: int) -> dict[str, Any]:
    """Return the speed of an epoch and the quartiles of its windows of 20 steps.

    Args:
        times: When the epoch began, and when each of its steps had ended.
        rows: Rows of the epoch.
        batch: Rows of a step.

    >>> speeds([0.0, 1.0, 2.0], rows=6, batch=4)
    {'samples_per_s': 3, 'epoch_s': 2.0, 'epochs': 1, 'win_median': 3, 'win_iqr': [3, 3]}
    """
    seconds = times[-1] - times[0]
    windows = WINDOW * batch / np.diff(times[::WINDOW])
    low, middle, high = np.percentile(windows, [25, 50, 75]) if len(windows) else [rows / seconds] * 3
    whole = {"samples_per_s": round(rows / seconds), "epoch_s": round(seconds, 2), "epochs": 1}
    return whole | {"win_median": round(middle), "win_iqr": [round(low), round(high)]}


def peak_mb() -> int:
    """Return the greatest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
