"""What a graph looks like, and its k-core."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recembed.errors import ConfigError, DataError
from recembed.graph.edges import Edges

__all__ = ["GraphStatistics", "core_of"]


@dataclass(frozen=True, slots=True)
class GraphStatistics:
    """Counts of a bipartite graph; a degree is a number of edges, weights left aside."""

    users: int
    items: int
    edges: int
    density: float
    isolated_users: int
    isolated_items: int
    mean_user_degree: float
    mean_item_degree: float
    median_user_degree: float
    median_item_degree: float
    max_user_degree: int
    max_item_degree: int

    @classmethod
    def of(cls, edges: Edges) -> "GraphStatistics":
        """Count.

        >>> GraphStatistics.of(Edges.of(np.array([0, 0, 2]), np.array([0, 1, 1]), None, (3, 2))).density
        0.5
        """
        users, items = edges.degrees, edges.column_degrees
        return cls(
            users=len(users),
            items=len(items),
            edges=len(edges),
            density=len(edges) / (len(users) * len(items)),
            isolated_users=int((users == 0).sum()),
            isolated_items=int((items == 0).sum()),
            mean_user_degree=float(users.mean()),
            mean_item_degree=float(items.mean()),
            median_user_degree=float(np.median(users)),
            median_item_degree=float(np.median(items)),
            max_user_degree=int(users.max()),
            max_item_degree=int(items.max()),
        )


def core_of(edges: Edges, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the users and the items of the k-core, ascending.

    Raises:
        ConfigError: ``k`` is below 1.
        DataError: no node has that many edges in any part of the graph.
    """
    if k < 1:
        raise ConfigError(f"k = {k}: expected at least 1 edge per node")
    rows, columns = edges.rows, edges.neighbours
    while True:
        users = np.bincount(rows, minlength=edges.shape[0])
        items = np.bincount(columns, minlength=edges.columns)
        kept = (users[rows] >= k) & (items[columns] >= k)
        if kept.all():
            break
        rows, columns = rows[kept], columns[kept]
    if not len(rows):
        raise DataError(f"the graph has no {k}-core: every part of it has a node with fewer edges; take a smaller k")
    return np.flatnonzero(users >= k), np.flatnonzero(items >= k)
