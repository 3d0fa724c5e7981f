"""Small graphs whose items have content: two sources, of widths 5 and 3."""

import numpy as np

from recembed.graph import InteractionGraph
from recembed.items import ItemVectors
from tests.graph.test_propagation import random_graph

USERS, ITEMS = 12, 9


def vectors(width: int, seed: int, *, items: int = ITEMS, absent: tuple[int, ...] = ()) -> ItemVectors:
    """Vectors of all items but the absent ones, whose rows hold what must never be read."""
    matrix = np.random.default_rng(seed).normal(0, 1, (items, width)).astype(np.float32)
    present = np.full(items, True)
    present[list(absent)] = False
    matrix[~present] = np.nan
    return ItemVectors(matrix, present, f"space{seed}")


def content(*, items: int = ITEMS, absent: tuple[int, ...] = ()) -> dict[str, ItemVectors]:
    return {"image": vectors(5, 1, items=items), "text": vectors(3, 2, items=items, absent=absent)}


def graph() -> InteractionGraph:
    """12 users, 9 items; nobody has met the last item."""
    return random_graph(USERS, ITEMS)
