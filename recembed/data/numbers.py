"""Mean, spread and quantiles of numeric columns, block by block in bounded memory."""

import numpy as np

from recembed.hashing import mix64
from recembed.schema.fitted import NumericStats

__all__ = ["NumericSummary"]

_LEVELS = 257
_SAMPLE_ROWS = 1 << 18


class NumericSummary:
    """Statistics of ``width`` columns.

    Moments are exact. Quantiles are exact up to 262,144 rows; above, they come from a sample that keeps the row at
    position ``p`` while the upper bits of ``mix64(p)`` are zero, one more bit each time the sample is full: the
    sample depends on the rows alone, not on how they were cut into blocks.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = 0
        self._count = np.zeros(width, np.int64)
        self._moments = np.zeros((4, width))  # mean and squared deviations, of x and of log1p(max(x, 0))
        self._low, self._high = np.full(width, np.inf), np.full(width, -np.inf)
        self._bits = 0
        self._kept = np.empty((0, width), np.float32)
        self._marks = np.empty(0, np.uint64)

    def add(self, block: np.ndarray) -> None:
        """Add float32 ``[B, width]``, NaN where missing."""
        if self.width == 0:
            return
        self._sample(block)
        self.rows += len(block)
        known = ~np.isnan(block)
        count = known.sum(0)
        values = block.astype(np.float64)
        self._low = np.fmin(self._low, np.fmin.reduce(values, axis=0))
        self._high = np.fmax(self._high, np.fmax.reduce(values, axis=0))
        logs = np.log1p(np.maximum(values, 0))
        total = np.maximum(self._count + count, 1)
        for place, x in enumerate((values, logs)):
            mean, squares = _moments(x, known, count)
            step = mean - self._moments[2 * place]
            self._moments[2 * place + 1] += squares + step**2 * (self._count * count / total)
            self._moments[2 * place] += step * (count / total)
        self._count += count

    def _sample(self, block: np.ndarray) -> None:
        marks = mix64(np.arange(self.rows, self.rows + len(block))).view(np.uint64)
        kept = np.flatnonzero(marks >> np.uint64(64 - self._bits) == 0) if self._bits else np.arange(len(block))
        self._kept = np.concatenate([self._kept, block[kept]])
        self._marks = np.concatenate([self._marks, marks[kept]])
        while len(self._kept) > _SAMPLE_ROWS:
            self._bits += 1
            still = self._marks >> np.uint64(64 - self._bits) == 0
            self._kept, self._marks = self._kept[still], self._marks[still]

    def result(self, start: int, width: int) -> NumericStats:
        """Return the statistics of columns ``start : start + width``; a column without values has mean 0, std 1."""
        part = slice(start, start + width)
        empty = self._count[part] == 0
        variance = self._moments[1::2, part] / np.maximum(self._count[part], 1)
        spread = np.where(variance > 0, np.sqrt(variance), 1.0)
        quantiles = np.zeros((width, _LEVELS), np.float32)
        for place in range(width):
            column = self._kept[:, start + place]
            column = column[~np.isnan(column)]
            if len(column):
                quantiles[place] = np.quantile(column, np.linspace(0, 1, _LEVELS))
        quantiles[~empty, 0], quantiles[~empty, -1] = self._low[part][~empty], self._high[part][~empty]
        return NumericStats(
            mean=self._moments[0, part].copy(),
            std=spread[0],
            log_mean=self._moments[2, part].copy(),
            log_std=spread[1],
            min=np.where(empty, 0.0, self._low[part]),
            max=np.where(empty, 0.0, self._high[part]),
            missing_rate=1 - self._count[part] / max(self.rows, 1),
            quantiles=quantiles,
        )


def _moments(values: np.ndarray, known: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = np.where(known, values, 0.0).sum(0) / np.maximum(count, 1)
    return mean, (np.where(known, values - mean, 0.0) ** 2).sum(0)
