"""``Adjacency``: the normalised matrix of a graph and its product with node vectors, forward and backward.

Axes: ``N`` nodes, users first; ``M`` entries (each edge twice, and the loops); ``D`` width.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.graph.edges import Edges
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.node_slice import NodeSlice
from recembed.graph.propagation import multiply
from recembed.rows.processes import Processes

__all__ = ["Adjacency", "Normalisation"]

Normalisation = Literal["symmetric", "row", "none"]


class Adjacency(nn.Module):
    """``A`` of a bipartite graph as compressed rows, with weights ready to multiply.

    The pattern of ``A`` is symmetric whatever its weights are, so the product of the backward pass reads the same
    rows with the weights of the transposed matrix. A node without edges has an empty row: its product is zero (or
    itself, where there are loops), never a division by zero.

    Args:
        graph: Users, items and edges; edge weights enter the matrix and the degrees.
        normalisation: ``symmetric`` is ``D^-1/2 A D^-1/2``, ``row`` is ``D^-1 A``, ``none`` is ``A``.
        self_loops: Add 1 on the diagonal before normalising, degrees included.

    Shapes:
        forward: float32 ``[N, D]`` to ``[N, D]``.

    >>> adjacency = Adjacency(InteractionGraph.of([0, 0], [0, 1]))
    >>> [[round(x, 3) for x in row] for row in adjacency.dense().tolist()]
    [[0.0, 0.707, 0.707], [0.707, 0.0, 0.0], [0.707, 0.0, 0.0]]
    """

    pointers: Tensor
    neighbours: Tensor
    weights: Tensor
    edge: Tensor

    def __init__(
        self, graph: InteractionGraph, normalisation: Normalisation = "symmetric", *, self_loops: bool = False
    ) -> None:
        super().__init__()
        self.processes = Processes()
        pointers, neighbours, values, edge = square(graph.edges, self_loops=self_loops)
        rows = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        degrees = np.bincount(rows, weights=values, minlength=len(pointers) - 1).astype(np.float64)
        weights, transposed = normalise(values, rows, neighbours, degrees, normalisation)
        index = torch.int32 if len(neighbours) < 2**31 else torch.int64
        self.num_edges = len(graph.edges)
        self._hold("pointers", torch.from_numpy(pointers).to(index))
        self._hold("neighbours", torch.from_numpy(neighbours).to(index))
        self._hold("weights", torch.from_numpy(weights))
        self._hold("transposed", None if transposed is weights else torch.from_numpy(transposed))
        self._hold("edge", torch.from_numpy(edge).to(index))

    def _hold(self, name: str, values: Tensor | None) -> None:
        self.register_buffer(name, values, persistent=False)  # the graph has it all

    def cut(self, nodes: NodeSlice) -> None:
        """Hold the rows of these nodes alone; from now on ``forward`` takes and returns theirs, in all processes at once."""
        first, last = (int(self.pointers[place]) for place in (nodes.start, nodes.stop))
        self._hold("pointers", self.pointers[nodes.start : nodes.stop + 1] - first)
        for name in ("neighbours", "weights", "transposed", "edge"):
            values = self._buffers[name]
            self._hold(name, None if values is None else values[first:last].clone())
        self.processes = nodes.processes

    @property
    def transposed_weights(self) -> Tensor:
        """Weights of the transposed matrix; those of the matrix itself where it is symmetric."""
        return self.weights if self._buffers["transposed"] is None else self.get_buffer("transposed")

    @property
    def num_nodes(self) -> int:
        """Rows of the matrix that are here."""
        return len(self.pointers) - 1

    def forward(self, vectors: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return ``A @ vectors``; ``weights`` are those of ``drop_edges`` for this step."""
        forward, backward = weights or (self.weights, self.transposed_weights)
        return multiply(vectors, self.pointers, self.neighbours, forward, backward, self.processes)

    def drop_edges(self, rate: float) -> tuple[Tensor, Tensor] | None:
        """Return weights, and those of the transposed matrix, with a share ``rate`` of the edges at 0.

        An edge goes in both directions at once, so a symmetric matrix stays symmetric; the edges that stay are scaled
        by ``1 / (1 - rate)``, so the expected product is the full one. Loops stay as they are. None where rate is 0.
        """
        if rate == 0:
            return None
        share = torch.full((self.num_edges + 1,), 1 - rate, device=self.weights.device)
        keep = torch.bernoulli(share) / share
        keep[-1] = 1.0  # the loops
        self.processes.broadcast(keep, 0)
        factor = keep[self.edge]  # [M]
        forward = self.weights * factor
        if self._buffers["transposed"] is None:
            return forward, forward
        return forward, self.get_buffer("transposed") * factor

    def dense(self) -> Tensor:
        """Return the matrix as ``[N, N]``, for tests on small graphs."""
        matrix = self.weights.new_zeros(self.num_nodes, self.num_nodes)
        rows = torch.repeat_interleave(torch.arange(self.num_nodes, device=matrix.device), self.pointers.diff())
        matrix[rows, self.neighbours.long()] = self.weights
        return matrix


def square(
    edges: Edges, *, self_loops: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Return pointers, neighbours, weights and edge numbers of ``[[0, R], [R^T, 0]]``; a loop has the number ``E``."""
    users, items = edges.shape
    transposed, origin = edges.transposed()
    pointers = np.concatenate([edges.pointers, transposed.pointers[1:] + len(edges)])
    neighbours = np.concatenate([edges.neighbours.astype(np.int64) + users, transposed.neighbours])
    edge = np.concatenate([np.arange(len(edges)), origin])
    values = np.ones(len(edges), np.float32) if edges.weights is None else np.asarray(edges.weights)
    values = np.concatenate([values, values[origin]])
    if self_loops:
        starts, nodes = pointers[:-1], np.arange(users + items)
        neighbours = np.insert(neighbours, starts, nodes)
        values, edge = np.insert(values, starts, np.float32(1)), np.insert(edge, starts, len(edges))
        pointers = pointers + np.arange(len(pointers))
    return pointers, neighbours, values, edge


def normalise(
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    degrees: NDArray[np.floating],
    normalisation: Normalisation,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weights of the matrix and of its transposed one, the same array where they are equal."""
    if normalisation == "none":
        return values, values
    inverse = np.divide(1.0, degrees, out=np.zeros(len(degrees)), where=degrees > 0)
    if normalisation == "symmetric":
        root = np.sqrt(inverse)
        weights = (values * root[rows] * root[columns]).astype(np.float32)
        return weights, weights
    if normalisation == "row":
        return (values * inverse[rows]).astype(np.float32), (values * inverse[columns]).astype(np.float32)
    raise ConfigError(f"normalisation = {normalisation!r}: expected symmetric, row or none")
