"""Integer keys that leave few gaps → places, by one array in place of a hash table."""

import numpy as np

__all__ = ["DenseKeys"]

_GAPS = 4
_EMPTY = -1


class DenseKeys:
    """The places of distinct int64 keys from 0 on, read from an array with a slot for every number up to the largest.

    The slots of a hash table take 16 to 32 bytes per key; where ``suits`` says so these take 4 to 16, and one reading.

    >>> keys = DenseKeys(np.array([7, 2]))
    >>> keys.places(np.array([2, 3, 7, -1, 8]))
    (array([1, 0, 0, 0, 0], dtype=int32), array([1, 3, 4]))
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._slots = np.full(int(keys.max(initial=-1)) + 2, _EMPTY, np.int32)  # the last is for keys beyond them
        self._slots[keys] = np.arange(len(keys), dtype=np.int32)

    @staticmethod
    def suits(keys: np.ndarray) -> bool:
        """Return whether keys lie in so narrow a range that the array is no larger than a hash table."""
        return len(keys) > 0 and int(keys.min()) >= 0 and int(keys.max()) < _GAPS * len(keys)

    def places(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the int32 place of each of int64 ``keys`` ``[N]``, and where in ``keys`` the unknown stand (place 0)."""
        slot = np.minimum(keys.view(np.uint64), np.uint64(len(self._slots) - 1))  # a negative key is beyond them too
        place: np.ndarray = self._slots.take(slot.view(np.int64))
        unknown = np.flatnonzero(place == _EMPTY)
        place[unknown] = 0
        return place, unknown
