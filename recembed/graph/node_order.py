"""An order of the nodes in which neighbours lie close together, for the cache's sake."""

import numpy as np
from numpy.typing import NDArray

from recembed.graph.edges import Edges

__all__ = ["locality_order"]


def locality_order(edges: Edges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the users and the items in reverse Cuthill-McKee order of the whole graph.

    A product with the adjacency reads one row of vectors per edge; in this order the rows read one after another are
    near in memory (Gowalla, 64 wide: 13 instead of 19 ms of one core).

    >>> users, items = locality_order(Edges.of(np.array([0, 1, 2]), np.array([2, 1, 2]), None, (3, 3)))
    >>> sorted(users.tolist()), sorted(items.tolist())
    ([0, 1, 2], [0, 1, 2])
    """
    from scipy.sparse import csr_array  # here, since it takes 20 MB of every process that loads it
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    count, other = edges.shape
    transposed, _ = edges.transposed()
    pointers = np.concatenate([edges.pointers, transposed.pointers[1:] + len(edges)])
    neighbours = np.concatenate([edges.neighbours.astype(np.int64) + count, transposed.neighbours])
    ones = np.ones(len(neighbours), np.int8)
    order = reverse_cuthill_mckee(
        csr_array((ones, neighbours, pointers), shape=(count + other,) * 2), symmetric_mode=True
    )
    order = order.astype(np.int64)
    return order[order < count], order[order >= count] - count
