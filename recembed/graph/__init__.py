"""Graphs of users and items, and vectors propagated over them.

Build an ``InteractionGraph`` from interactions, hand it to an encoder (``LightGCN``, ``NGCF``); one call gives the
vectors of all users and all items.
"""

from recembed.graph.adjacency import Adjacency
from recembed.graph.columns import GraphColumns
from recembed.graph.edges import Edges
from recembed.graph.encoder import AuxiliaryVectors, BatchVectors, GraphEncoder
from recembed.graph.fastrp import FastRP
from recembed.graph.inductive import hops, one_hop_update
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.lightgcn import LightGCN
from recembed.graph.line import Line
from recembed.graph.neighbour_sampling import NeighbourSampler, SampledHops
from recembed.graph.ngcf import NGCF
from recembed.graph.node_piece import NodePiece
from recembed.graph.node_vectors import GivenVectors, NodeVectors
from recembed.graph.poincare import Poincare, nearest_in_ball, poincare_distance
from recembed.graph.reconstruction import hop_distances, reconstruction_map
from recembed.graph.saved import load_graph, save_graph
from recembed.graph.statistics import GraphStatistics

__all__ = [
    "NGCF",
    "Adjacency",
    "AuxiliaryVectors",
    "BatchVectors",
    "Edges",
    "FastRP",
    "GivenVectors",
    "GraphColumns",
    "GraphEncoder",
    "GraphStatistics",
    "InteractionGraph",
    "LightGCN",
    "Line",
    "NeighbourSampler",
    "NodePiece",
    "NodeVectors",
    "Poincare",
    "SampledHops",
    "hop_distances",
    "hops",
    "load_graph",
    "nearest_in_ball",
    "one_hop_update",
    "poincare_distance",
    "reconstruction_map",
    "save_graph",
]
