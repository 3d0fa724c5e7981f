"""What alignment learns from: histories of users by places in a catalogue, and how often items are consumed.

Axes: ``N`` items, ``U`` users, ``M`` consumed items of all users.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recembed.errors import DataError, did_you_mean

__all__ = ["Histories", "co_consumed", "neighbour_recall"]

_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Histories:
    """What users consumed, oldest first.

    Attributes:
        items: int64 ``[M]``, places of items; user ``u`` owns ``items[offsets[u]:offsets[u + 1]]``.
        offsets: int64 ``[U + 1]``.
        unknown: Rows of items that the catalogue does not hold; they are left out.

    >>> frame = pl.DataFrame({"user": [1, 2, 1, 1], "item": ["b", "a", "a", "z"], "time": [2, 1, 1, 3]})
    >>> histories = Histories.of(frame, pl.Series(["a", "b"]), user="user", item="item", time="time")
    >>> histories.items.tolist(), histories.offsets.tolist(), histories.unknown
    ([0, 1, 0], [0, 2, 3], 1)
    """

    items: np.ndarray
    offsets: np.ndarray
    unknown: int

    @classmethod
    def of(
        cls, interactions: pl.DataFrame, ids: pl.Series, *, user: str, item: str, time: str | None = None
    ) -> "Histories":
        """Collect histories.

        Args:
            interactions: A row per consumed item.
            ids: Raw ids of the catalogue, ``N`` of them.
            user: Column of users.
            item: Column of raw ids of items.
            time: What orders a user's rows; None takes them as they stand.

        Raises:
            DataError: a column is not there, ids are of another type than the catalogue's, or not one is known.
        """
        for name in (user, item, *([time] if time else [])):
            if name not in interactions.columns:
                raise DataError(f"interactions have no column {name!r}" + did_you_mean(name, interactions.columns))
        if (interactions.schema[item] == pl.String) != (ids.dtype == pl.String):
            raise DataError(
                f"interactions hold ids of type {interactions.schema[item]} in {item!r}, the content {ids.dtype}; "
                "write them in one type"
            )
        places = pl.DataFrame({"i": ids, "p": np.arange(len(ids))})
        order = [pl.col(time).alias("t")] if time else []
        frame = interactions.select(
            pl.col(user).alias("u"), pl.col(item).cast(ids.dtype).alias("i"), *order
        ).drop_nulls()
        known = frame.join(places, on="i", how="inner", maintain_order="left")
        if not known.height:
            raise DataError(f"not one item of {item!r} is in the content: is it the right column?")
        known = known.sort("u", *(["t"] if time else []), maintain_order=True)
        lengths = known.group_by("u", maintain_order=True).len()["len"].to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return cls(known["p"].to_numpy().astype(np.int64), offsets.astype(np.int64), frame.height - known.height)

    def counts(self, items: int) -> np.ndarray:
        """Return how often each of ``items`` items was consumed, int64 ``[N]``."""
        found: np.ndarray = np.bincount(self.items, minlength=items)
        return found

    def steps(self, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what came before each next item, int64 ``[S, longest]`` with -1 in front, and that item, ``[S]``."""
        starts = np.repeat(self.offsets[:-1], np.diff(self.offsets))
        place = np.flatnonzero(np.arange(len(self.items)) > starts)
        before = place[:, None] + np.arange(-longest, 0)
        return np.where(before >= starts[place, None], self.items[before.clip(min=0)], -1), self.items[place]


def co_consumed(histories: Histories, window: int = 1) -> np.ndarray:
    """Return the distinct pairs of items that stand at most ``window`` apart in a history, int64 ``[P, 2]``, both ways.

    >>> co_consumed(Histories(np.array([0, 1, 0, 2]), np.array([0, 3, 4]), 0)).tolist()
    [[0, 1], [1, 0]]
    """
    user = np.repeat(np.arange(len(histories.offsets) - 1), np.diff(histories.offsets))
    pairs = []
    for step in range(1, window + 1):
        one, other = histories.items[:-step], histories.items[step:]
        kept = (user[:-step] == user[step:]) & (one != other)
        pairs += [np.stack([one[kept], other[kept]], 1), np.stack([other[kept], one[kept]], 1)]
    found: np.ndarray = np.unique(np.concatenate(pairs), axis=0)
    return found


def neighbour_recall(vectors: np.ndarray, pairs: np.ndarray, k: int = 10) -> float:
    """Return the share of pairs whose second item is among the ``k`` nearest of the first by cosine, itself left out.

    >>> neighbour_recall(np.array([[1.0, 0], [1, 1], [0, 1]]), np.array([[0, 1], [0, 2]]), k=1)
    0.5
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    hits = sum(_hits(unit, part, k) for part in _by_query(pairs))
    return hits / max(len(pairs), 1)


def _by_query(pairs: np.ndarray) -> Iterator[np.ndarray]:
    ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
    for start in range(0, len(ordered), _ROWS):
        yield ordered[start : start + _ROWS]


def _hits(unit: np.ndarray, pairs: np.ndarray, k: int) -> int:
    queries, place = np.unique(pairs[:, 0], return_inverse=True)
    scores = unit[queries] @ unit.T  # [Q, N]
    scores[np.arange(len(queries)), queries] = -np.inf
    wanted = scores[place, pairs[:, 1]]
    return int(((scores[place] > wanted[:, None]).sum(axis=1) < k).sum())
