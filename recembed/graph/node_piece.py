"""NodePiece: a node is spelled by its nearest anchors and the types of its edges, so parameters do not grow with nodes.

Axes: ``N`` nodes, users first; ``A`` anchors, ``k`` anchors per node, ``T`` edge types, ``D`` width.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recembed.errors import ConfigError, DataError
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.reconstruction import hop_distances

__all__ = ["NodePiece", "anchor_tokens", "top_degree_nodes"]

_BLOCK = 64


def top_degree_nodes(graph: InteractionGraph, count: int) -> NDArray[np.int64]:
    """Return the ``count`` nodes with the most edges, the first of equal ones."""
    degrees = np.concatenate([graph.edges.degrees, graph.edges.column_degrees])
    return np.argsort(-degrees, kind="stable")[:count]


def anchor_tokens(
    graph: InteractionGraph, anchors: NDArray[np.integer], per_node: int, most_hops: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the nearest anchors of every node and how far they are, both ``[N, k]``, nearest first, then by number.

    Places without an anchor within ``most_hops`` hold the number ``A`` and the distance ``most_hops + 1``.
    """
    tokens = np.full((graph.num_nodes, 0), 0, np.int64)
    distances = tokens.copy()
    for start in range(0, len(anchors), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(anchors)))
        found = hop_distances(graph, anchors[block], most_hops).T  # [N, block]
        hops = np.where(np.isfinite(found), found, most_hops + 1).astype(np.int64)
        names = np.where(hops <= most_hops, block, len(anchors))
        tokens, distances = nearest(np.hstack([tokens, names]), np.hstack([distances, hops]), per_node)
    short = per_node - tokens.shape[1]
    tokens = np.pad(tokens, ((0, 0), (0, max(short, 0))), constant_values=len(anchors))
    return tokens, np.pad(distances, ((0, 0), (0, max(short, 0))), constant_values=most_hops + 1)


def nearest(
    tokens: NDArray[np.int64], distances: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first ``count`` tokens of each row by distance, then by number."""
    order = np.lexsort((tokens, distances), axis=1)[:, :count]
    return np.take_along_axis(tokens, order, 1), np.take_along_axis(distances, order, 1)


class NodePiece(nn.Module):
    """A base for graph encoders, and an encoder by itself: ``[N, D]`` from anchors, distances and edge types.

    Parameters are ``(A + 1 + T) D + (hops + 2) D`` and a network, whatever the number of nodes. Two nodes with the same
    tokens have the same vector; ``distinct_share`` says how many do not.

    Args:
        graph: Users, items and edges; ``graph.types`` become relation tokens.
        embedding_dim: Width.
        anchors: Number of anchors, the nodes with the most edges.
        per_node: Anchors in a node's spelling.
        most_hops: An anchor further away is not seen.
        hidden: Width of the network's hidden layer; None takes twice ``embedding_dim``.
        seed: Of the parameters.

    Raises:
        ConfigError: a number is below 1, or there are more anchors than nodes.

    Reference:
        Galkin et al., NodePiece, ICLR 2022. Anchors by degree; the mean over the types of a node's edges in place of a
        sample of them; a network over the pieces side by side.

    >>> NodePiece(InteractionGraph.of([0, 1], [0, 0]), 4, anchors=1, per_node=1)().shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        graph: InteractionGraph,
        embedding_dim: int = 64,
        *,
        anchors: int = 1000,
        per_node: int = 20,
        most_hops: int = 3,
        hidden: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(embedding_dim, anchors, per_node, most_hops) < 1 or anchors > graph.num_nodes:
            raise ConfigError(
                f"embedding_dim = {embedding_dim}, anchors = {anchors}, per_node = {per_node}, most_hops = {most_hops}: "
                f"expected at least 1 each, and at most {graph.num_nodes} anchors, the nodes of the graph"
            )
        self.embedding_dim, self.most_hops = embedding_dim, most_hops
        self.anchor_nodes = top_degree_nodes(graph, anchors)
        tokens, distances = anchor_tokens(graph, self.anchor_nodes, per_node, most_hops)
        self.register_buffer("tokens", torch.from_numpy(tokens))
        self.register_buffer("distances", torch.from_numpy(distances))
        self.register_buffer("relations", _relations(graph))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.anchors = nn.Embedding(anchors + 1, embedding_dim)  # the last for "no anchor"
            self.hops = nn.Embedding(most_hops + 2, embedding_dim)
            self.types = nn.Parameter(torch.randn(max(len(graph.types), 1), embedding_dim))
            width = hidden or 2 * embedding_dim
            pieces = embedding_dim * (per_node + 1)
            self.network = nn.Sequential(nn.Linear(pieces, width), nn.ReLU(), nn.Linear(width, embedding_dim))

    def forward(self) -> Tensor:
        """Return the vectors of all nodes, ``[N, D]``."""
        return self.spell(self.get_buffer("tokens"), self.get_buffer("distances"), self.get_buffer("relations"))

    def spell(self, tokens: Tensor, distances: Tensor, relations: Tensor) -> Tensor:
        """Return the vectors of nodes by their tokens: ``[n, k]``, ``[n, k]`` and shares of edge types ``[n, T]``."""
        anchors = self.anchors(tokens) + self.hops(distances)  # [n, k, D]
        pieces = torch.cat([anchors.flatten(1), relations @ self.types], dim=1)
        vectors: Tensor = self.network(pieces)
        return vectors

    def tokens_of(self, neighbours: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Return the tokens of a node that the graph does not hold, from its neighbours' nodes: each one hop further.

        Exact where the neighbours' own lists reach far enough.

        Raises:
            DataError: it has no neighbour.
        """
        if not len(neighbours):
            raise DataError("a new node without a neighbour has no anchors: give at least one neighbour")
        hops: dict[int, int] = {}
        own = {int(node): place for place, node in enumerate(self.anchor_nodes)}
        for node in neighbours:
            pairs = zip(
                self.get_buffer("tokens")[node].tolist(), self.get_buffer("distances")[node].tolist(), strict=True
            )
            for anchor, distance in [*pairs, *([(own[int(node)], 0)] if int(node) in own else [])]:
                if anchor < len(self.anchor_nodes) and distance < self.most_hops:
                    hops[anchor] = min(hops.get(anchor, distance + 1), distance + 1)
        names = np.array([*hops, *[len(self.anchor_nodes)] * self.per_node], np.int64)[None]
        far = np.array([*hops.values(), *[self.most_hops + 1] * self.per_node], np.int64)[None]
        tokens, distances = nearest(names, far, self.per_node)
        return torch.from_numpy(tokens), torch.from_numpy(distances)

    @property
    def per_node(self) -> int:
        """Anchors in a node's spelling."""
        return int(self.get_buffer("tokens").shape[1])

    @property
    def distinct_share(self) -> float:
        """Distinct spellings per node: below 1, some nodes cannot be told apart."""
        parts = [self.get_buffer(name).double() for name in ("tokens", "distances", "relations")]
        return len(torch.unique(torch.cat(parts, dim=1), dim=0)) / len(parts[0])


def _relations(graph: InteractionGraph) -> Tensor:
    """Return the share of each edge type among a node's edges, float32 ``[N, T]``; one type where none is named."""
    counts = [
        np.concatenate([edges.degrees, edges.column_degrees]) for edges in (graph.types.values() or [graph.edges])
    ]
    shares = np.stack(counts, axis=1).astype(np.float32)
    return torch.from_numpy(shares / np.maximum(shares.sum(1, keepdims=True), 1))
