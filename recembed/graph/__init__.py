"""Graphs of users and items, and vectors propagated over them.

Build an ``InteractionGraph`` from interactions, hand it to an encoder (``LightGCN``, ``NGCF``); one call gives the
vectors of all users and all items.
"""

from recembed.graph.adjacency import Adjacency
from recembed.graph.columns import GraphColumns
from recembed.graph.edges import Edges
from recembed.graph.encoder import BatchVectors, GraphEncoder
from recembed.graph.fastrp import FastRP
from recembed.graph.inductive import hops, one_hop_update
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.lightgcn import LightGCN
from recembed.graph.ngcf import NGCF
from recembed.graph.node_vectors import GivenVectors, NodeVectors
from recembed.graph.reconstruction import hop_distances, reconstruction_map
from recembed.graph.saved import load_graph, save_graph
from recembed.graph.statistics import GraphStatistics

__all__ = [
    "NGCF",
    "Adjacency",
    "BatchVectors",
    "Edges",
    "FastRP",
    "GivenVectors",
    "GraphColumns",
    "GraphEncoder",
    "GraphStatistics",
    "InteractionGraph",
    "LightGCN",
    "NodeVectors",
    "hop_distances",
    "hops",
    "load_graph",
    "one_hop_update",
    "reconstruction_map",
    "save_graph",
]
