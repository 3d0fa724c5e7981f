"""Interactions with a structure to be found: users of a block like the items of that block."""

import numpy as np

from recembed.evaluation import UserItems
from recembed.graph import InteractionGraph, LightGCN

USERS, ITEMS, BLOCKS = 60, 50, 5


def interactions(seed: int = 0) -> UserItems:
    generator = np.random.default_rng(seed)
    same = (np.arange(USERS)[:, None] % BLOCKS) == (np.arange(ITEMS)[None] % BLOCKS)
    met = generator.random((USERS, ITEMS)) < np.where(same, 0.7, 0.02)
    return UserItems(*np.nonzero(met), num_users=USERS, num_items=ITEMS)


def light_gcn(train: UserItems, layers: int = 2, seed: int = 0) -> LightGCN:
    graph = InteractionGraph.of(train.users, train.items, num_users=train.num_users, num_items=train.num_items)
    return LightGCN(graph, 8, layers, seed=seed)
