"""A ``.npy`` file, and an array in memory, that grow along their first axis."""

from pathlib import Path

import numpy as np

__all__ = ["ArrayFile", "GrowingArray"]

_HEADER_BYTES = 128


class ArrayFile:
    """Appends arrays to one ``.npy`` file; readable after ``close``."""

    def __init__(self, path: Path, first: np.ndarray) -> None:
        self._file = path.open("wb")
        self._dtype, self._shape = first.dtype, first.shape
        self._file.write(self._header())
        self._file.write(np.ascontiguousarray(first).data)

    def _header(self) -> bytes:
        fields = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": self._shape}
        text = repr(fields).encode().ljust(_HEADER_BYTES - 11) + b"\n"
        return np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text

    def append(self, array: np.ndarray) -> None:
        """Append ``array``, whose other axes and type are those of the first."""
        self._file.write(np.ascontiguousarray(array, self._dtype).data)
        self._shape = (self._shape[0] + len(array), *self._shape[1:])

    def close(self) -> tuple[int, ...]:
        """Write the final shape, close the file and return the shape."""
        try:
            self._file.seek(0)
            self._file.write(self._header())
        finally:
            self._file.close()
        return self._shape


class GrowingArray:
    """Grows in place, so that the parts are never held beside the whole; ``rows``, where known, spares the growth."""

    def __init__(self, first: np.ndarray, rows: int = 0) -> None:
        self._array, self._rows = np.empty((max(rows, len(first)), *first.shape[1:]), first.dtype), len(first)
        self._array[: len(first)] = first

    def append(self, part: np.ndarray) -> None:
        """Append ``part``, whose other axes and type are those of the first."""
        rows = self._rows + len(part)
        if rows > len(self._array):
            self._resize(max(rows, len(self._array) * 5 // 4))
        self._array[self._rows : rows] = part
        self._rows = rows

    def close(self) -> np.ndarray:
        """Return the whole, without a copy."""
        self._resize(self._rows)
        return self._array

    def _resize(self, rows: int) -> None:
        self._array.resize((rows, *self._array.shape[1:]), refcheck=False)
