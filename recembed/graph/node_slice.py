"""``NodeSlice``: the nodes whose rows this process holds and computes, and the exchange with those that have the others.

Axes: ``N`` nodes, ``n`` nodes of this process, ``D`` width.
"""

from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from recembed.rows.processes import Processes

__all__ = ["CutByNodes", "NodeSlice"]


class NodeSlice:
    """One of as many runs of nodes as there are processes; a single process has all of them.

    A process has its fair share of nodes and entries of the adjacency together: nodes take memory, entries take time, and
    all entries of a bipartite graph may lie with few busy nodes.

    Gradients are of each process's own loss, as everywhere: those of the loss of all, divided by ``processes.share``. So
    the gradient of a parameter that every process has is summed with all others; of one that is cut by nodes it is whole.

    Args:
        num_nodes: Nodes of the graph.
        processes: Those that train together; None is one.
        pointers: Of the adjacency, ``[N + 1]``; None counts nodes alone.

    Attributes:
        start, stop: The first node, and the one after the last.

    >>> nodes = NodeSlice(5)
    >>> nodes.start, nodes.stop
    (0, 5)
    """

    def __init__(self, num_nodes: int, processes: Processes | None = None, pointers: Tensor | None = None) -> None:
        self.num_nodes, self.processes = num_nodes, processes or Processes()
        self.start, self.stop = 0, num_nodes
        if self.processes.count > 1:
            before = torch.arange(num_nodes + 1, dtype=torch.float64) / num_nodes  # share of the work before a node
            if pointers is not None:
                before = (before + pointers.cpu().double() / max(int(pointers[-1]), 1)) / 2
            ends = torch.arange(self.processes.count + 1, dtype=torch.float64) / self.processes.count
            places = torch.searchsorted(before, ends).tolist()
            self.start, self.stop = places[self.processes.rank], places[self.processes.rank + 1]

    def __len__(self) -> int:
        return self.stop - self.start

    def cut(self, *parts: object) -> Self:
        """Leave those parts that can be cut with what belongs to these nodes alone."""
        for part in parts:
            if isinstance(part, CutByNodes):
                part.cut(self)
        return self

    def of(self, vectors: Tensor) -> Tensor:
        """Return the rows ``[n, D]`` of these nodes, out of those of all, ``[N, D]``; or, given as they are, themselves."""
        return vectors if len(vectors) == len(self) else vectors[self.start : self.stop]

    def whole(self, vectors: Tensor) -> Tensor:
        """Return the rows of all nodes, ``[N, D]``, of which each process gives its own, ``[n, D]``."""
        if self.processes.count == 1:
            return vectors
        gathered: Tensor = _Whole.apply(vectors, self)  # type: ignore[no-untyped-call]
        return gathered


@runtime_checkable
class CutByNodes(Protocol):
    """A module that can hold what belongs to a slice of the nodes alone."""

    def cut(self, nodes: NodeSlice) -> None:
        """Hold that from now on."""


class _Whole(torch.autograd.Function):
    """Every process may read every row, so the gradient of a row is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, nodes: NodeSlice) -> Tensor:
        ctx.nodes = nodes
        return nodes.processes.gather(vectors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        processes = ctx.nodes.processes
        return ctx.nodes.of(processes.total(gradients[0] * processes.share)) / processes.share, None
