"""How often each value of a vocabulary occurs, block by block."""

import numpy as np
import polars as pl

from recembed.hashing import MISSING_KEY
from recembed.schema.key_index import KeyTable

__all__ = ["Counts"]

_DENSE = 4
"""Counts are added to all values of a vocabulary at once where it has at most so many per row of the block."""


class Counts:
    """How often each value of one vocabulary occurs. Memory grows with distinct values, not with rows.

    Values are told apart by their 64-bit keys alone, so two strings of one key are counted as one, under the name of
    the first, and nothing says so: comparing the strings of every row would double the pass, and among n different
    strings two have one key with probability n² / 2⁶⁵ (one in 37 million for a million strings).

    >>> counts = Counts()
    >>> _ = counts.add(pl.Series(["a", "b"]), np.array([7, 7]))
    >>> [part.to_list() if isinstance(part, pl.Series) else part.tolist() for part in counts.result()]
    [['a'], [7], [2]]
    """

    def __init__(self) -> None:
        self._table = KeyTable(np.empty(0, np.int64))
        self._counts = np.empty(0, np.int64)
        self._values: list[pl.Series] = []
        self.missing = 0

    @property
    def keys(self) -> np.ndarray:
        """The distinct keys, int64, in the order of their places."""
        return self._table.keys

    def add(self, values: pl.Series, keys: np.ndarray) -> np.ndarray:
        """Count ``values``, whose int64 keys are ``keys``; return the int32 place of each, -1 where it is missing."""
        if not self._values:
            self._values.append(values.clear())
        places, unknown = self._table.places(keys)
        before = self.missing
        if len(unknown):
            missing = keys.take(unknown) == MISSING_KEY
            places[unknown[missing]] = -1
            self.missing += int(np.count_nonzero(missing))
            self._add_new(values, keys, places, unknown[~missing])
        self._count(places, any_missing=self.missing > before)
        return places

    def _add_new(self, values: pl.Series, keys: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
        """Give a place to the keys at ``rows``, which the table lacks, in the order of their first rows."""
        if not len(rows):
            return
        first, place = _distinct(keys.take(rows))
        places[rows] = len(self._table) + place
        new = rows.take(first)
        self._table.add(keys.take(new))
        chosen = np.zeros(len(values), bool)
        chosen[new] = True
        self._values.append(values.filter(pl.Series(chosen)))

    def _count(self, places: np.ndarray, *, any_missing: bool) -> None:
        if len(self._table) > len(self._counts):
            grown = np.zeros(max(len(self._table), 2 * len(self._counts)), np.int64)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
        if len(self._table) <= _DENSE * len(places):
            shift = int(any_missing)  # -1 cannot be counted
            counts = np.bincount(places + 1 if shift else places, minlength=len(self._table) + shift)
            self._counts[: len(self._table)] += counts[shift:]
        else:
            np.add.at(self._counts, places[places >= 0], 1)

    def result(self) -> tuple[pl.Series, np.ndarray, np.ndarray]:
        """Return the distinct values, their keys and their counts."""
        return pl.concat(self._values), self.keys, self._counts[: len(self._table)]


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each of the distinct ``keys`` stands first, ascending, and for every key the number of its own.

    The same as ``np.unique`` with index and inverse, apart from the order; an unstable sort is several times faster.

    >>> [part.tolist() for part in _distinct(np.array([7, 9, 7, 5]))]
    [[0, 1, 3], [0, 1, 0, 2]]
    """
    order = np.argsort(keys)
    ascending = keys.take(order)
    starts = np.concatenate([[True], ascending[1:] != ascending[:-1]])
    first = np.minimum.reduceat(order, np.flatnonzero(starts))
    by_row = np.argsort(first)
    rank = np.empty_like(by_row)
    rank[by_row] = np.arange(len(by_row))
    place = np.empty_like(order)
    place[order] = rank.take(np.cumsum(starts) - 1)
    return first.take(by_row), place
