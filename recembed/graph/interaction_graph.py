"""``InteractionGraph``: users, items and the edges between them, built from any table of interactions.

Nodes are numbered from 0 on each side; ``user_ids`` and ``item_ids`` name them by their raw ids. Axes: ``U`` users,
``I`` items, ``E`` edges.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recembed.errors import ConfigError, DataError, did_you_mean
from recembed.graph.columns import GraphColumns
from recembed.graph.edges import Duplicates, Edges
from recembed.graph.node_order import locality_order
from recembed.graph.raw_ids import distinct_ids, places_of
from recembed.graph.statistics import GraphStatistics, core_of

__all__ = ["InteractionGraph"]


@dataclass(frozen=True)
class InteractionGraph:
    """A bipartite graph of users and items.

    Attributes:
        user_ids: Raw id of each user, integers or strings; item_ids: likewise.
        edges: Every pair of a user and an item that met, once.
        types: The edges of each type, where the interactions have several; ``edges`` holds them all.

    Raises:
        DataError: no edge, a number outside its range, or a weight that is not above 0.

    >>> graph = InteractionGraph.of([0, 0, 1], [0, 1, 1])
    >>> graph.num_users, graph.num_items, graph.num_edges, graph.user_items(0).tolist()
    (2, 2, 3, [0, 1])
    """

    user_ids: pl.Series
    item_ids: pl.Series
    edges: Edges
    types: dict[str, Edges] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.edges.check()
        if self.edges.shape != (len(self.user_ids), len(self.item_ids)):
            raise DataError(
                f"edges of shape {self.edges.shape} between {len(self.user_ids)} users and {len(self.item_ids)} items"
            )

    @classmethod
    def of(
        cls,
        users: Any,
        items: Any,
        weights: Any = None,
        *,
        num_users: int | None = None,
        num_items: int | None = None,
        duplicates: Duplicates = "once",
    ) -> Self:
        """Build from node numbers, one pair per interaction; nodes without an edge may exist beyond them."""
        pairs = np.asarray(users, np.int64), np.asarray(items, np.int64)
        if pairs[0].shape != pairs[1].shape or pairs[0].ndim != 1:
            raise DataError(f"users {pairs[0].shape} and items {pairs[1].shape}: expected two arrays of one length")
        sizes = []
        for name, numbers, size in (("user", pairs[0], num_users), ("item", pairs[1], num_items)):
            count = (int(numbers.max()) + 1 if len(numbers) else 0) if size is None else size
            low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, -1)
            if low < 0 or high >= count:
                bad = low if low < 0 else high
                raise DataError(f"{name} {bad} is outside 0..{count - 1}; give raw ids to `from_frame` instead")
            sizes.append(count)
        weight = None if weights is None else np.asarray(weights, np.float32)
        return cls.over(Edges.of(*pairs, weight, (sizes[0], sizes[1]), duplicates))

    @classmethod
    def over(cls, edges: Edges) -> Self:
        """Build from edges; raw ids are the numbers of the nodes."""
        users, items = (pl.Series(np.arange(size, dtype=np.int64)) for size in edges.shape)
        return cls(users, items, edges)

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame | pl.LazyFrame,
        columns: GraphColumns | None = None,
        *,
        user_ids: pl.Series | None = None,
        item_ids: pl.Series | None = None,
    ) -> Self:
        """Build from raw ids, strings or integers; users and items are numbered in the order of their ids.

        Args:
            frame: One interaction per row.
            columns: Which column is what; None takes ``user_id`` and ``item_id``.
            user_ids: All users there are, also those without an edge; an interaction of any other is left out.
            item_ids: All items there are, likewise.
        """
        columns = columns or GraphColumns()
        rows = columns.read(frame)
        users = distinct_ids(rows[columns.user]) if user_ids is None else user_ids
        items = distinct_ids(rows[columns.item]) if item_ids is None else item_ids
        places = places_of(rows[columns.user], users), places_of(rows[columns.item], items)
        kept = (places[0] >= 0) & (places[1] >= 0)
        rows = rows.filter(pl.Series(kept))
        user, item, weights = places[0][kept], places[1][kept], columns.weights(rows)
        shape = len(users), len(items)
        types = {}
        if columns.edge_type is not None:
            names = columns.types(rows)
            for name in names.unique().sort().to_list():
                own = (names == name).to_numpy()
                weight = None if weights is None else weights[own]
                types[name] = Edges.of(user[own], item[own], weight, shape, columns.duplicates)
        return cls(users, items, Edges.of(user, item, weights, shape, columns.duplicates), types)

    @property
    def num_users(self) -> int:
        """Users, also those without an edge."""
        return self.edges.shape[0]

    @property
    def num_items(self) -> int:
        """Items, also those without an edge."""
        return self.edges.shape[1]

    @property
    def num_nodes(self) -> int:
        """Users and items together; in arrays over all nodes the users come first."""
        return self.num_users + self.num_items

    @property
    def num_edges(self) -> int:
        """Distinct pairs."""
        return len(self.edges)

    def user_items(self, user: int) -> NDArray[np.int32]:
        """Return the items that a user met, ascending: the positives of training."""
        return self.edges.of_row(user)

    def users_of(self, raw: pl.Series) -> NDArray[np.int64]:
        """Return the number of each raw user id, -1 for one the graph does not hold."""
        return places_of(raw, self.user_ids)

    def items_of(self, raw: pl.Series) -> NDArray[np.int64]:
        """Return the number of each raw item id, -1 for one the graph does not hold."""
        return places_of(raw, self.item_ids)

    def only(self, edge_type: str) -> "InteractionGraph":
        """Return the graph of the same nodes with the edges of one type."""
        if edge_type not in self.types:
            raise ConfigError(f"edge type {edge_type!r} is not in the graph" + did_you_mean(edge_type, self.types))
        return InteractionGraph(self.user_ids, self.item_ids, self.types[edge_type])

    def for_locality(self) -> "InteractionGraph":
        """Return the same graph with nodes renumbered so that neighbours lie close: propagation is a third faster.

        The order is a function of the edges alone (reverse Cuthill-McKee); ``user_ids`` and ``item_ids`` follow it.
        """
        return self._take(*locality_order(self.edges))

    def core(self, k: int) -> "InteractionGraph":
        """Return the k-core: the largest part in which every user and every item has at least ``k`` edges."""
        return self._take(*core_of(self.edges, k))

    def statistics(self) -> GraphStatistics:
        """Return counts, density and degrees."""
        return GraphStatistics.of(self.edges)

    def _take(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> "InteractionGraph":
        """Return the graph of these nodes, in this order."""
        numbers = []
        for kept, count in ((users, self.num_users), (items, self.num_items)):
            number = np.full(count, -1, np.int64)
            number[kept] = np.arange(len(kept))
            numbers.append(number)
        shape = len(users), len(items)
        types = {name: edges.renumbered(numbers[0], numbers[1], shape) for name, edges in self.types.items()}
        edges = self.edges.renumbered(numbers[0], numbers[1], shape)
        return InteractionGraph(self.user_ids[users], self.item_ids[items], edges, types)
