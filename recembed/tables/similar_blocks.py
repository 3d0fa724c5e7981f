"""Blocks of numbers that are nearly the same, found by locality-sensitive hashing, and blocks that are merely near.

Axes: ``K`` blocks, ``L`` numbers of a block.
"""

import math

import torch
from torch import Tensor

from recembed.hashing import mix64
from recembed.rows import Init
from recembed.tables.fresh_rows import fresh_rows, uniform_draws

__all__ = ["merge_nearest", "merge_similar"]

_CELL = 4.0  # width of a hash cell, in distances of two blocks that differ by the tolerance everywhere


def merge_similar(blocks: Tensor, *, tolerance: float, similarity: float, bands: int, hashes: int, seed: int) -> Tensor:
    """Return for every block the first one found to be like it, or itself.

    Two blocks are alike where a share ``similarity`` of their numbers differ by at most ``tolerance``. Candidates are
    blocks that fall into one cell of ``hashes`` random projections (L2-LSH: Datar et al., SCG 2004), new ones in each
    band. A block that stands for another one is never merged itself, so every block is like the one that stands for it.

    Shapes:
        blocks: float32 ``[K, L]``. Returns int64 ``[K]``.

    >>> blocks = torch.tensor([[1.0, 2.0], [5.0, 5.0], [1.0, 2.0]])
    >>> merge_similar(blocks, tolerance=0.1, similarity=1.0, bands=2, hashes=4, seed=0).tolist()
    [0, 1, 0]
    """
    count, length = blocks.shape
    cell = max(_CELL * tolerance * math.sqrt(length), torch.finfo(torch.float32).tiny)
    leader = torch.arange(count, device=blocks.device)
    leads = torch.zeros_like(leader, dtype=torch.bool)
    for band in range(bands):
        seeds = seed ^ torch.arange(band * hashes, (band + 1) * hashes, device=blocks.device)
        directions = fresh_rows(Init(1.0, "normal"), seeds, length)  # [hashes, L]
        alone = (leader == torch.arange(count, device=blocks.device)).nonzero().squeeze(1)
        projected = (blocks[alone] @ directions.T).double() / cell + uniform_draws(~seeds, 1).squeeze(1)
        cells = torch.zeros_like(alone)
        for cell_of_hash in projected.floor().long().unbind(1):
            cells = mix64(cells + cell_of_hash)
        _, group = torch.unique(cells, return_inverse=True)
        first = torch.full_like(alone, count).scatter_reduce_(0, group, alone, "amin")[group]
        alike = ((blocks[alone] - blocks[first]).abs() <= tolerance).float().mean(1) >= similarity
        merged = alike & (alone != first) & ~leads[alone]
        leader[alone[merged]] = first[merged]
        leads[first[merged]] = True
    return leader


def merge_nearest(blocks: Tensor, leader: Tensor, weights: Tensor, keep: int) -> Tensor:
    """Return ``leader`` with at most ``keep`` different blocks: the heaviest stay, the others join the nearest (L2).

    Shapes:
        blocks: float32 ``[K, L]``; leader, weights: int64 ``[K]``. Returns int64 ``[K]``.

    >>> blocks, alone = torch.tensor([[0.0], [1.0], [5.0], [6.0]]), torch.arange(4)
    >>> merge_nearest(blocks, alone, torch.tensor([1, 3, 9, 2]), keep=2).tolist()
    [1, 1, 2, 2]
    """
    unique, place = torch.unique(leader, return_inverse=True)
    if len(unique) <= keep:
        return leader
    weight = torch.zeros_like(unique).index_add_(0, place, weights)
    order = weight.argsort(descending=True, stable=True)
    kept, rest = unique[order[:keep]].sort().values, unique[order[keep:]]
    target = torch.arange(len(leader), device=leader.device)
    for part in rest.split(max(1, 2**24 // keep)):
        target[part] = kept[torch.cdist(blocks[part], blocks[kept]).argmin(1)]
    return target[leader]
