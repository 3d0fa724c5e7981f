"""Products with a graph that is read piece by piece, from memory or mapped from disk.

Axes: ``N`` nodes, users first; ``D`` width.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from recembed.graph.edges import Edges

__all__ = ["degree_sums", "streamed_product"]

_CHUNK = 1 << 20


def _pieces(edges: Edges) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield users, items and weights of at most ``_CHUNK`` edges."""
    for start in range(0, len(edges), _CHUNK):
        stop = min(start + _CHUNK, len(edges))
        first = int(np.searchsorted(edges.pointers, start, side="right")) - 1
        last = int(np.searchsorted(edges.pointers, stop, side="left"))
        cuts = np.clip(edges.pointers[first : last + 1], start, stop)
        users = torch.from_numpy(np.repeat(np.arange(first, last), np.diff(cuts)))
        items = torch.from_numpy(np.array(edges.neighbours[start:stop], np.int64))
        weights = None if edges.weights is None else torch.from_numpy(np.array(edges.weights[start:stop]))
        yield users, items, weights


def streamed_product(edges: Edges, vectors: Tensor) -> Tensor:
    """Return ``A @ vectors``, not normalised; memory beside the two arrays does not grow with the edges.

    Shapes:
        vectors: float32 ``[N, D]``. Returns the same.
    """
    users = edges.shape[0]
    result = torch.zeros_like(vectors)
    for own, other, weights in _pieces(edges):
        to_users, to_items = vectors[other + users], vectors[own]
        if weights is not None:
            to_users, to_items = to_users * weights[:, None], to_items * weights[:, None]
        result.index_add_(0, own, to_users)
        result.index_add_(0, other + users, to_items)
    return result


def degree_sums(edges: Edges) -> Tensor:
    """Return the sum of each node's weights, float32 ``[N]``: its degree where there are none."""
    return streamed_product(edges, torch.ones(sum(edges.shape), 1))[:, 0]
