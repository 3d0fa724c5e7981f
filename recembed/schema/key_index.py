"""Keys → places by one probe of a hash table: what counting and encoding use in place of a binary search."""

import numpy as np
import torch

from recembed.hashing import MISSING_KEY
from recembed.schema.dense_keys import DenseKeys
from recembed.schema.vocabulary import MISSING_ID, Vocabulary, lookup_ids

__all__ = ["KeyIndex", "KeyTable", "unseen_ids"]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio
_LEAST_BITS = 12


class KeyTable:
    """Distinct int64 keys in the order of their arrival, and the place of each.

    A key's home slot is the upper bits of ``key * multiplier``; it lies there or in the next free slot behind (linear
    probing, at most a quarter of the slots are taken; the first keys, in a vocabulary the frequent ones, lie at home).
    An empty slot holds place 0, and key 0 stands in no slot: whoever ends at an empty slot compares with it. The keys
    given first are used as they are, not copied.

    >>> table = KeyTable(np.array([7, 9]))
    >>> table.places(np.array([9, 8])), table.add(np.array([5])), table.places(np.array([5, 7]))
    ((array([1, 0], dtype=int32), array([1])), None, (array([2, 0], dtype=int32), array([], dtype=int64)))
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._keys, self._size = np.ascontiguousarray(keys, np.int64), len(keys)
        self._rebuild()

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._size

    @property
    def keys(self) -> np.ndarray:
        """The keys, int64, in the order of their places."""
        return self._keys[: self._size]

    def _rebuild(self) -> None:
        bits = max((4 * self._size).bit_length(), _LEAST_BITS)
        self._shift, self._mask = np.uint64(64 - bits), (1 << bits) - 1
        self._slots = np.zeros(1 << bits, np.int32)
        self._insert(1)

    def _home(self, keys: np.ndarray) -> np.ndarray:
        mixed = keys.view(np.uint64) * _MULTIPLIER
        mixed >>= self._shift
        slots: np.ndarray = mixed.view(np.int64)
        return slots

    def _insert(self, first: int) -> None:
        """Give a slot to the keys from place ``first`` on; of those that meet in a free slot, the first stays."""
        step = 1 << 16  # a few pages of the table at a time, so that temporary arrays stay small
        for low in range(max(first, 1), self._size, step):
            place = np.arange(low, min(low + step, self._size), dtype=np.int32)
            slot = self._home(self._keys[low : low + len(place)])
            while len(place):
                free = np.flatnonzero(self._slots.take(slot) == 0)[::-1]
                self._slots[slot[free]] = place[free]
                moves = self._slots.take(slot) != place
                place, slot = place[moves], (slot[moves] + 1) & self._mask

    def add(self, keys: np.ndarray) -> None:
        """Append distinct ``keys``, of which the table holds none yet."""
        first, self._size = self._size, self._size + len(keys)
        if self._size > len(self._keys):
            grown = np.empty(max(2 * len(self._keys), self._size), np.int64)
            grown[:first] = self._keys[:first]
            self._keys = grown
        self._keys[first : self._size] = keys
        if 4 * self._size > len(self._slots):
            self._rebuild()
        else:
            self._insert(first)

    def places(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the int32 place of each of int64 ``keys`` ``[N]``, and where in ``keys`` the unknown stand (place 0)."""
        if self._size == 0:
            return np.zeros(len(keys), np.int32), np.arange(len(keys))
        slot = self._home(keys)
        place: np.ndarray = self._slots.take(slot)
        other: np.ndarray = np.flatnonzero(self._keys.take(place) != keys)
        if not len(other):
            return place, other
        unknown = []
        wanted: np.ndarray = keys.take(other)
        seen: np.ndarray = place.take(other)
        slot = slot.take(other)
        while len(other):
            walks = np.flatnonzero(seen)
            if len(walks) < len(other):  # the others ended at an empty slot, and are not key 0
                unknown.append(other[seen == 0])
                other, wanted, slot = other.take(walks), wanted.take(walks), slot.take(walks)
            slot += 1
            slot &= self._mask
            seen = self._slots.take(slot)
            same = self._keys.take(seen) == wanted
            place[other] = seen  # right where it is the same, else overwritten later
            walks = np.flatnonzero(~same)
            other, wanted = other.take(walks), wanted.take(walks)
            slot, seen = slot.take(walks), seen.take(walks)
        if not unknown:
            return place, other
        missing = np.sort(np.concatenate(unknown))
        place[missing] = 0
        return place, missing


class KeyIndex:
    """The same map as ``Vocabulary.lookup``, several times faster for many keys; it holds 16 to 32 bytes per key.

    Integers from 0 on that leave few gaps are looked up in an array, in 4 to 16 bytes per key.

    >>> import polars as pl
    >>> vocabulary = Vocabulary.build(pl.Series([7, 9]), np.array([7, 9]), np.array([1, 2]))
    >>> KeyIndex(vocabulary).lookup(np.array([7, 9, 8, MISSING_KEY]))
    (array([4, 3, 2, 1], dtype=int32), array([2]))
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        keys = vocabulary.keys
        self._table = DenseKeys(keys) if DenseKeys.suits(keys) else KeyTable(keys)
        self._first_id = np.int32(vocabulary.first_id)
        self._oov_buckets = vocabulary.oov_buckets

    def lookup(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 ids of int64 ``keys`` ``[N]``, and the int64 places of the unseen ones."""
        ids, unknown = self._table.places(keys)
        ids += self._first_id
        if not len(unknown):
            return ids, unknown
        missing = keys.take(unknown) == MISSING_KEY
        ids[unknown[missing]] = MISSING_ID
        unseen = unknown[~missing]
        if len(unseen):
            ids[unseen] = unseen_ids(keys.take(unseen), self._oov_buckets)
        return ids, unseen


def unseen_ids(keys: np.ndarray, oov_buckets: int) -> np.ndarray:
    """Return the int64 out-of-vocabulary id of each of int64 ``keys``."""
    no_keys, no_ids = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int32)
    return lookup_ids(torch.from_numpy(keys), no_keys, no_ids, oov_buckets).numpy()
