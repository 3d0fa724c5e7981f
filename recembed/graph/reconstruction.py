"""How well vectors give the graph back: a check of quality that needs no labels.

Axes: ``N`` nodes, users first; ``n`` nodes that are asked, ``D`` width.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import ConfigError, DataError
from recembed.graph.adjacency import Adjacency
from recembed.graph.interaction_graph import InteractionGraph

__all__ = ["hop_distances", "reconstruction_map"]

_BLOCK = 16


def hop_distances(graph: InteractionGraph, nodes: NDArray[np.integer], most: int) -> NDArray[np.float32]:
    """Return float32 ``[n, N]``: hops from each of ``nodes`` to every node, infinite beyond ``most``."""
    distances: NDArray[np.float32] = _distances(Adjacency(graph), nodes, most).numpy()
    return distances


def _distances(adjacency: Adjacency, nodes: NDArray[np.integer], most: int) -> Tensor:
    """Return float32 ``[n, N]``: all nodes walk at once, one product with the adjacency a hop."""
    front = torch.zeros(adjacency.num_nodes, len(nodes))  # [N, n]
    front[torch.from_numpy(np.asarray(nodes)), torch.arange(len(nodes))] = 1.0
    distances = torch.where(front > 0, 0.0, torch.inf)
    for hop in range(1, most + 1):
        fresh = (adjacency(front) > 0) & distances.isinf()
        distances[fresh] = hop
        front = fresh.float()
    return distances.T.contiguous()


@torch.no_grad()
def reconstruction_map(
    graph: InteractionGraph,
    vectors: Tensor,
    *,
    most_hops: int = 3,
    nodes: NDArray[np.integer] | None = None,
    cosine: bool = False,
) -> dict[int, float]:
    """Return, for 1 to ``most_hops``, the mean average precision of finding the nodes exactly that many hops away.

    For each node all others are ranked by their inner product with it (ties by number), itself left out. Nodes that
    have none at a distance do not count there; random vectors get about the share of nodes at that distance.

    Args:
        graph: Users, items, edges.
        vectors: float32 ``[N, D]``, users first.
        most_hops: Up to this distance.
        nodes: Numbers of the nodes that are asked; None asks all of them, at a cost of ``N²``.
        cosine: Rank by cosine.

    Raises:
        ConfigError: no hop is asked for. DataError: there is not one vector per node.

    Reference:
        RESTORE, intrinsic assessment of node embeddings by topological reconstruction. Differs: the hops are exact.
    """
    if most_hops < 1:
        raise ConfigError(f"most_hops = {most_hops}: expected at least 1")
    if len(vectors) != graph.num_nodes:
        raise DataError(f"{len(vectors)} vectors for {graph.num_nodes} nodes: expected those of users, then of items")
    asked = np.arange(graph.num_nodes) if nodes is None else np.asarray(nodes)
    vectors = F.normalize(vectors, dim=1) if cosine else vectors
    adjacency, sums, counts = Adjacency(graph), np.zeros(most_hops), np.zeros(most_hops)
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        distances = _distances(adjacency, block, most_hops)  # [n, N]
        scores = vectors[torch.from_numpy(block)] @ vectors.T  # [n, N]
        scores[torch.arange(len(block)), torch.from_numpy(block)] = -torch.inf
        order = scores.argsort(dim=1, descending=True, stable=True)
        ranked = distances.gather(1, order)
        for hop in range(1, most_hops + 1):
            precision = _average_precision(ranked == hop)
            counts[hop - 1] += len(precision)
            sums[hop - 1] += float(precision.sum())
    return {hop: float(sums[hop - 1] / max(counts[hop - 1], 1)) for hop in range(1, most_hops + 1)}


def _average_precision(relevant: Tensor) -> Tensor:
    """Return the average precision of every row of bool ``[n, N]`` that has a relevant place."""
    relevant = relevant[relevant.any(1)]
    places = torch.arange(1, relevant.shape[1] + 1)
    precision = relevant.cumsum(1) / places
    return (precision * relevant).sum(1) / relevant.sum(1)
