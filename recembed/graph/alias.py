"""Draws in proportion to weights, in constant time each."""

import numpy as np
from numpy.typing import NDArray

from recembed.errors import DataError

__all__ = ["AliasSampler"]


class AliasSampler:
    """Walker's alias method: every slot holds one or two numbers, a draw picks a slot and one of them.

    Args:
        weights: ``[n]``, 0 or above, not all 0.

    Raises:
        DataError: weights that nothing can be drawn by.

    >>> AliasSampler(np.array([0.0, 2.0])).draw(3, np.random.default_rng(0)).tolist()
    [1, 1, 1]
    """

    def __init__(self, weights: NDArray[np.floating] | NDArray[np.integer]) -> None:
        scaled = np.asarray(weights, np.float64)
        if not len(scaled) or not np.isfinite(scaled).all() or scaled.min() < 0 or scaled.sum() == 0:
            raise DataError("weights to draw by: expected finite numbers of 0 or above, not all of them 0")
        scaled = scaled * (len(scaled) / scaled.sum())
        self._share, self._other = np.ones(len(scaled)), np.arange(len(scaled))
        small, large = (list(np.flatnonzero(part)) for part in (scaled < 1, scaled >= 1))
        while small and large:
            low, high = small.pop(), large[-1]
            self._share[low], self._other[low] = scaled[low], high
            scaled[high] -= 1 - scaled[low]
            if scaled[high] < 1:
                small.append(large.pop())

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Return ``count`` independent draws."""
        slots = random.integers(0, len(self._share), count)
        drawn: NDArray[np.int64] = np.where(random.random(count) < self._share[slots], slots, self._other[slots])
        return drawn
