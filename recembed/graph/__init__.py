"""Graphs of users and items, and vectors propagated over them.

Build an ``InteractionGraph`` from interactions, hand it to an encoder (``LightGCN``, ``NGCF``); one call gives the
vectors of all users and all items.
"""

from recembed.graph.adjacency import Adjacency
from recembed.graph.columns import GraphColumns
from recembed.graph.edges import Edges
from recembed.graph.encoder import GraphEncoder
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.lightgcn import LightGCN
from recembed.graph.ngcf import NGCF
from recembed.graph.node_vectors import GivenVectors, NodeVectors
from recembed.graph.saved import load_graph, save_graph
from recembed.graph.statistics import GraphStatistics

__all__ = [
    "NGCF",
    "Adjacency",
    "Edges",
    "GivenVectors",
    "GraphColumns",
    "GraphEncoder",
    "GraphStatistics",
    "InteractionGraph",
    "LightGCN",
    "NodeVectors",
    "load_graph",
    "save_graph",
]
