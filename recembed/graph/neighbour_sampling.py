"""LightGCN of a few nodes without the whole graph: their neighbourhood, sampled, hop by hop.

Axes: ``N`` nodes, users first; ``n`` nodes asked, ``M`` entries of the matrix, ``D`` width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recembed.errors import ConfigError
from recembed.graph.adjacency import Adjacency

__all__ = ["NeighbourSampler", "SampledHops"]


@dataclass(frozen=True, slots=True)
class SampledHops:
    """The part of a graph that the vectors of some nodes are computed from.

    Shapes:
        nodes: int64 ``[m]``, every node whose base vector is read, those that were asked first; blocks: for each layer
        from the outermost in, a sparse matrix whose columns are the nodes before it and rows the nodes after it.
    """

    nodes: Tensor
    blocks: tuple[Tensor, ...]

    def mean_of_layers(self, base: Tensor) -> Tensor:
        """Return LightGCN's vectors of the nodes asked, ``[n, D]``, from base vectors ``[m, D]`` of ``nodes``."""
        count = self.blocks[-1].shape[0] if self.blocks else len(self.nodes)
        total, current = base[:count], base
        for block in self.blocks:
            current = torch.sparse.mm(block, current)
            total = total + current[:count]
        return total / (len(self.blocks) + 1)


class NeighbourSampler:
    """Samples neighbours of nodes from a normalised matrix, each entry scaled so that the expected product is the full one.

    Work and memory grow with the nodes asked and the fan-outs, not with the graph: its arrays are only indexed, so they
    may be mapped from disk. With a fan-out of None every neighbour is taken, and the vectors are those of the full
    propagation.

    Args:
        pointers: ``[N + 1]``; neighbours: ``[M]``; weights: ``[M]``: rows of the matrix.
        fan_outs: Neighbours per node, for each layer from the nodes asked outwards.
        seed: Of the draws.

    Raises:
        ConfigError: a fan-out is below 1.
    """

    def __init__(
        self,
        pointers: NDArray[np.integer],
        neighbours: NDArray[np.integer],
        weights: NDArray[np.floating],
        fan_outs: tuple[int | None, ...],
        seed: int = 0,
    ) -> None:
        if any(fan_out is not None and fan_out < 1 for fan_out in fan_outs):
            raise ConfigError(f"fan_outs = {fan_outs}: expected at least 1 neighbour, or None for all")
        self.pointers, self.neighbours, self.weights = pointers, neighbours, weights
        self.fan_outs, self._random = fan_outs, np.random.default_rng(seed)

    @classmethod
    def of(cls, adjacency: Adjacency, fan_outs: tuple[int | None, ...], seed: int = 0) -> "NeighbourSampler":
        """Sample from an adjacency in memory."""
        pointers, neighbours, weights = (
            part.cpu().numpy() for part in (adjacency.pointers, adjacency.neighbours, adjacency.weights)
        )
        return cls(pointers, neighbours, weights, fan_outs, seed)

    def sample(self, nodes: Tensor) -> SampledHops:
        """Return the sampled hops around ``nodes``, int64 ``[n]``, all different."""
        known, blocks = nodes.numpy(), []
        for fan_out in self.fan_outs:
            row, neighbour, weight = self._entries(known, fan_out)
            every = np.concatenate([known, np.setdiff1d(neighbour, known)])
            order = np.argsort(every, kind="stable")
            column = order[np.searchsorted(every, neighbour, sorter=order)]
            places = torch.from_numpy(np.stack([row, column]))
            values = torch.from_numpy(weight.astype(np.float32))
            block = torch.sparse_coo_tensor(places, values, (len(known), len(every)), check_invariants=False)
            blocks.append(block.coalesce())
            known = every
        return SampledHops(torch.from_numpy(known), tuple(reversed(blocks)))

    def _entries(
        self, nodes: NDArray[np.int64], fan_out: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]:
        """Return row, neighbour and weight of the entries taken: all of a short row, draws with replacement of a long one."""
        starts = np.asarray(self.pointers[nodes], np.int64)
        degrees = np.asarray(self.pointers[nodes + 1], np.int64) - starts
        taken = degrees if fan_out is None else np.minimum(degrees, fan_out)
        row = np.repeat(np.arange(len(nodes)), taken)
        offset = np.arange(len(row)) - np.repeat(np.cumsum(taken) - taken, taken)
        long = degrees[row] > taken[row]
        offset[long] = (self._random.random(int(long.sum())) * degrees[row[long]]).astype(np.int64)
        places = starts[row] + offset
        scale = degrees[row] / taken[row]
        return row, np.asarray(self.neighbours[places], np.int64), np.asarray(self.weights[places]) * scale
