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
    position ``p`` while the upper bits of ``mix64(p)`` are zero, one more bit each time the sample is full.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = 0
        self._count = np.zeros(width, np.int64)
        self._shift = np.full((2, width), np.nan)  # the first block's means: sums of small numbers lose no digits
        self._sum, self._squares = np.zeros((2, width)), np.zeros((2, width))
        self._low, self._high = np.full(width, np.inf), np.full(width, -np.inf)
        self._bits = 0
        self._kept: list[np.ndarray] = []
        self._marks: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Add float32 ``[B, width]``, NaN where missing."""
        if self.width == 0:
            return
        self._sample(block)
        self.rows += len(block)
        for place in range(self.width):
            column = np.ascontiguousarray(block[:, place])
            missing = np.isnan(column)
            values = (column[~missing] if missing.any() else column).astype(np.float64)
            if len(values):
                self._add_column(place, values)

    def _add_column(self, place: int, values: np.ndarray) -> None:
        low, high = values.min(), values.max()
        self._count[place] += len(values)
        self._low[place] = min(self._low[place], low)
        self._high[place] = max(self._high[place], high)
        logs = np.abs(values)
        np.log1p(logs, out=logs)
        if low < 0:
            logs *= np.sign(values)
        for which, x in enumerate((values, logs)):
            if np.isnan(self._shift[which, place]):
                self._shift[which, place] = x.mean()
            x -= self._shift[which, place]
            self._sum[which, place] += x.sum()
            np.square(x, out=x)
            self._squares[which, place] += x.sum()

    def _sample(self, block: np.ndarray) -> None:
        marks = mix64(np.arange(self.rows, self.rows + len(block), dtype=np.int64)).view(np.uint64)
        kept = self._still(marks)
        self._kept.append(block[kept])
        self._marks.append(marks[kept])
        while sum(map(len, self._marks)) > _SAMPLE_ROWS:
            self._bits += 1
            keep = [self._still(marks) for marks in self._marks]
            self._kept = [rows[still] for rows, still in zip(self._kept, keep, strict=True)]
            self._marks = [marks[still] for marks, still in zip(self._marks, keep, strict=True)]

    def _still(self, marks: np.ndarray) -> np.ndarray:
        limit = np.uint64(2**64 - 1) >> np.uint64(self._bits)
        return np.asarray(marks <= limit)

    def result(self, start: int, width: int) -> NumericStats:
        """Return the statistics of columns ``start : start + width``; a column without values has mean 0, std 1."""
        part = slice(start, start + width)
        empty = self._count[part] == 0
        count = np.maximum(self._count[part], 1)
        offset = self._sum[:, part] / count
        mean = np.where(empty, 0.0, self._shift[:, part] + offset)
        variance = self._squares[:, part] / count - offset**2
        spread = np.where(self._high[part] > self._low[part], np.sqrt(np.maximum(variance, 0)), 0.0)
        spread = np.where(spread > 0, spread, 1.0)
        kept = np.concatenate([rows[:, part] for rows in self._kept]) if self._kept else np.empty((0, width))
        quantiles = np.stack([_quantiles(column) for column in kept.T])
        quantiles[~empty, 0], quantiles[~empty, -1] = self._low[part][~empty], self._high[part][~empty]
        return NumericStats(
            mean=mean[0],
            std=spread[0],
            log_mean=mean[1],
            log_std=spread[1],
            min=np.where(empty, 0.0, self._low[part]),
            max=np.where(empty, 0.0, self._high[part]),
            missing_rate=1 - self._count[part] / max(self.rows, 1),
            quantiles=quantiles,
        )


def _quantiles(column: np.ndarray) -> np.ndarray:
    column = column[~np.isnan(column)]
    if len(column) == 0:
        return np.zeros(_LEVELS, np.float32)
    column.sort()
    place = np.linspace(0, 1, _LEVELS) * (len(column) - 1)
    lower = np.floor(place).astype(np.int64)
    share, low, high = place - lower, column[lower], column[np.minimum(lower + 1, len(column) - 1)]
    step = high - low
    levels = np.where(share >= 0.5, high - step * (1 - share), low + step * share)  # as np.quantile does, to the bit
    return np.maximum.accumulate(levels.astype(np.float32))
