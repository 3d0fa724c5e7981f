"""Value ↔ id: the part of the model that says which row an id owns."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recembed.errors import DataError
from recembed.hashing import MISSING_KEY, hash_rows, salt

__all__ = ["FIRST_OOV_ID", "MISSING_ID", "PADDING_ID", "Vocabulary", "lookup_ids"]

PADDING_ID = 0
MISSING_ID = 1
FIRST_OOV_ID = 2
_OOV_SALT = salt("out-of-vocabulary")
_LARGE = 2**16 - 1


def lookup_ids(keys: Tensor, sorted_keys: Tensor, sorted_ids: Tensor, oov_buckets: int) -> Tensor:
    """Map int64 ``keys`` of any shape to ids with plain torch operations (also inside an exported graph).

    Shapes:
        keys: int64 ``[*S]``; sorted_keys: int64 ``[V]``; sorted_ids: int32 ``[V]``. Returns int64 ``[*S]``.
    """
    oov = hash_rows(keys, _OOV_SALT, oov_buckets) + FIRST_OOV_ID
    if sorted_keys.shape[0] == 0:
        found = oov
    else:
        position = torch.searchsorted(sorted_keys, keys).clamp_(max=sorted_keys.shape[0] - 1)
        found = torch.where(sorted_keys[position] == keys, sorted_ids[position].long(), oov)
    return torch.where(keys == MISSING_KEY, MISSING_ID, found)


def _by_falling_count(keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return ``np.lexsort((keys, -counts))`` of int64 ``keys`` and ``counts``, of which most are small.

    Counts below 65,535 are sorted as 16-bit numbers, by radix; the few others by themselves.
    """
    order = np.argsort(keys)
    falling = counts.take(order)
    small = (_LARGE - np.minimum(falling, _LARGE)).astype(np.uint16)
    order = order.take(np.argsort(small, kind="stable"))
    frequent = order[: int(np.count_nonzero(falling >= _LARGE))]
    order[: len(frequent)] = frequent[np.lexsort((keys[frequent], -counts[frequent]))]
    return order


@dataclass(frozen=True)
class Vocabulary:
    """The ids of one feature: 0 padding, 1 missing, then out-of-vocabulary buckets, then the known values.

    Growth appends, so a value never changes its row. A refit sorts by falling count (hot rows lie together).

    Attributes:
        keys: int64 ``[V]``, the 64-bit keys in id order.
        counts: int64 ``[V]``, occurrences in the training rows.
        values: The raw values, Int64 or String, in id order: what makes the map invertible.
        oov_buckets: Number of out-of-vocabulary ids.
        oov_count: Training occurrences that were folded into the buckets.
        missing_count: Training occurrences without a value.

    >>> v = Vocabulary.build(pl.Series(["a", "b"]), np.array([11, 5]), np.array([3, 9]))
    >>> v.num_embeddings, v.lookup(np.array([5, 11, 7])).tolist(), v.inverse(np.array([3, 4])).to_list()
    (5, [3, 4, 2], ['b', 'a'])
    """

    keys: np.ndarray
    counts: np.ndarray
    values: pl.Series
    oov_buckets: int = 1
    oov_count: int = 0
    missing_count: int = 0

    def __post_init__(self) -> None:
        """Hold integers once: they are their own keys."""
        if self.values.dtype == pl.Int64 and not self.values.has_nulls():
            values = self.values.rechunk()
            keys = values.to_numpy()  # a view
            if np.array_equal(keys, self.keys):
                object.__setattr__(self, "values", values)
                object.__setattr__(self, "keys", keys)

    @classmethod
    def build(
        cls,
        values: pl.Series,
        keys: np.ndarray,
        counts: np.ndarray,
        *,
        oov_buckets: int = 1,
        oov_count: int = 0,
        missing_count: int = 0,
    ) -> "Vocabulary":
        """Sort by falling count, then by key.

        Raises:
            DataError: a key comes twice, or is reserved. ``fit`` counts by key, so two strings of one key (a collision
                of 64-bit hashes) reach this as one value.
        """
        order = _by_falling_count(keys, counts)
        vocabulary = cls(keys[order], counts[order], values.gather(order), oov_buckets, oov_count, missing_count)
        vocabulary._check()
        return vocabulary

    def _check(self) -> None:
        if (self.keys == MISSING_KEY).any():
            raise DataError(f"id {MISSING_KEY} is reserved for missing values; renumber it")
        ascending = np.sort(self.keys)
        same = np.flatnonzero(ascending[1:] == ascending[:-1])
        if same.size:
            rows = np.flatnonzero(self.keys == ascending[same[0]])[:2]
            raise DataError(f"values {self.values.gather(rows).to_list()} have the same 64-bit key; rename one of them")

    def extend(self, values: pl.Series, keys: np.ndarray, counts: np.ndarray) -> "Vocabulary":
        """Return a vocabulary grown by the keys it lacks; known keys add to their counts and keep their ids."""
        ids = self.lookup(keys)
        known = ids >= self.first_id
        grown = self.counts.copy()
        np.add.at(grown, ids[known] - self.first_id, counts[known])
        new = np.flatnonzero(~known)
        new = new[_by_falling_count(keys[new], counts[new])]
        vocabulary = Vocabulary(
            np.concatenate([self.keys, keys[new]]),
            np.concatenate([grown, counts[new]]),
            pl.concat([self.values, values.gather(new).cast(self.values.dtype)]),
            self.oov_buckets,
            self.oov_count,
            self.missing_count,
        )
        vocabulary._check()
        return vocabulary

    @property
    def first_id(self) -> int:
        """The id of the first known value."""
        return FIRST_OOV_ID + self.oov_buckets

    @property
    def num_embeddings(self) -> int:
        """Rows a table needs: reserved ids plus known values."""
        return self.first_id + len(self.keys)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.keys, kind="stable")
        return self.keys[order], (order + self.first_id).astype(np.int32)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return ``sorted_keys`` int64 and ``sorted_ids`` int32 ``[V]``: the two arrays of ``lookup_ids``."""
        keys, ids = self._sorted
        return torch.from_numpy(keys), torch.from_numpy(ids)

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """Map int64 ``keys`` to int64 ids of the same shape."""
        return lookup_ids(
            torch.from_numpy(np.require(keys, requirements=["C", "W"])), *self.tensors(), self.oov_buckets
        ).numpy()

    def inverse(self, ids: np.ndarray) -> pl.Series:
        """Return the raw values of int64 ``ids`` (null for reserved ids)."""
        rows = pl.Series(np.asarray(ids, dtype=np.int64) - self.first_id)
        return self.values.gather(rows.set(rows < 0, None))

    def row_counts(self) -> np.ndarray:
        """Return the training count of every id, int64 ``[num_embeddings]``; reserved ids count what folded there."""
        table = np.zeros(self.num_embeddings, np.int64)
        table[MISSING_ID] = self.missing_count
        table[FIRST_OOV_ID : self.first_id] = self.oov_count // self.oov_buckets
        table[self.first_id :] = self.counts
        return table

    def count_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the training count of each of ``ids``, int64 of the same shape."""
        counts: np.ndarray = self.row_counts()[ids]
        return counts
