"""``Edges``: which items each user met, as compressed rows; the only form in which a graph is held.

Axes: ``U`` users, ``I`` items, ``E`` edges (distinct pairs of a user and an item).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recembed.errors import DataError

__all__ = ["Duplicates", "Edges"]

Duplicates = Literal["once", "sum"]


@dataclass(frozen=True, slots=True)
class Edges:
    """A sparse ``[U, I]`` matrix by rows, columns of a row ascending, every pair once.

    Shapes:
        pointers: int64 ``[U + 1]``; neighbours: int32 ``[E]``, the item of each edge; weights: float32 ``[E]``, or None
        where every edge counts 1.
    """

    pointers: NDArray[np.int64]
    neighbours: NDArray[np.int32]
    weights: NDArray[np.float32] | None
    columns: int

    @classmethod
    def of(
        cls,
        rows: NDArray[np.integer],
        columns: NDArray[np.integer],
        weights: NDArray[np.floating] | None,
        shape: tuple[int, int],
        duplicates: Duplicates = "once",
    ) -> "Edges":
        """Sort pairs into rows and merge duplicates.

        ``once`` keeps a pair with the weight it came with first (1 without weights); ``sum`` adds the weights up, or
        counts the pairs where there are none.

        >>> edges = Edges.of(np.array([1, 0, 1]), np.array([2, 0, 2]), None, (2, 3), "sum")
        >>> edges.pointers.tolist(), edges.neighbours.tolist(), edges.weights.tolist()
        ([0, 1, 2], [0, 2], [1.0, 2.0])
        """
        keys = rows.astype(np.int64) * shape[1] + columns
        if duplicates == "sum" and weights is None:
            weights = np.ones(len(keys), np.float32)
        if len(keys) and not bool(np.all(keys[1:] > keys[:-1])):
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            first = np.flatnonzero(np.diff(keys, prepend=-1))
            if weights is not None:
                weights = weights[order]
                weights = np.add.reduceat(weights, first) if duplicates == "sum" else weights[first]
            keys = keys[first]
        pointers = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(np.bincount(keys // shape[1], minlength=shape[0]), out=pointers[1:])
        kept = None if weights is None else weights.astype(np.float32)
        return cls(pointers, (keys % shape[1]).astype(np.int32), kept, shape[1])

    def __len__(self) -> int:
        """Return the number of edges."""
        return len(self.neighbours)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.pointers) - 1, self.columns

    @property
    def rows(self) -> NDArray[np.int32]:
        """The row of each edge, int32 ``[E]``."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.pointers))

    @property
    def degrees(self) -> NDArray[np.int64]:
        """Edges of each row, int64 ``[U]``."""
        return np.diff(self.pointers)

    @property
    def column_degrees(self) -> NDArray[np.int64]:
        """Edges of each column, int64 ``[I]``."""
        return np.bincount(self.neighbours, minlength=self.columns)

    def of_row(self, row: int) -> NDArray[np.int32]:
        """Return the columns of one row, ascending."""
        return self.neighbours[self.pointers[row] : self.pointers[row + 1]]

    def transposed(self) -> tuple["Edges", NDArray[np.int64]]:
        """Return the ``[I, U]`` matrix, and int64 ``[E]``: for each of its edges the place of it in this one."""
        order = np.argsort(self.neighbours, kind="stable")  # rows ascend within a column, as they did
        pointers = np.concatenate([[0], np.cumsum(self.column_degrees)]).astype(np.int64)
        weights = None if self.weights is None else self.weights[order]
        return Edges(pointers, self.rows[order], weights, self.shape[0]), order

    def renumbered(self, rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]) -> "Edges":
        """Return the edges under new numbers of rows and columns; an edge whose end has number -1 is dropped.

        >>> edges = Edges.of(np.array([0, 1]), np.array([0, 1]), None, (2, 2))
        >>> edges.renumbered(np.array([1, 0]), np.array([0, -1]), (2, 1)).rows.tolist()
        [1]
        """
        ends = rows[self.rows], columns[self.neighbours]
        kept = (ends[0] >= 0) & (ends[1] >= 0)
        weights = None if self.weights is None else self.weights[kept]
        return Edges.of(ends[0][kept], ends[1][kept], weights, shape)

    def check(self) -> None:
        """Raise a DataError where there is no edge, or a weight is not above 0."""
        if not len(self):
            raise DataError("the graph has no edge: no interaction is left; check the columns, `until` and the filters")
        if self.weights is not None and not bool(np.all((self.weights > 0) & np.isfinite(self.weights))):
            bad = self.weights[~((self.weights > 0) & np.isfinite(self.weights))][0]
            raise DataError(f"weight {bad} of an edge: expected a finite number above 0; drop such rows before")
