"""Rows drawn afresh while training runs, from integers alone, so that a resumed run draws the same.

Axes: ``U`` rows, ``D`` width.
"""

import math

import torch
from torch import Tensor

from recembed.hashing import mix64
from recembed.rows import Init

__all__ = ["fresh_rows", "uniform_draws"]

_STEP = 0x9E3779B97F4A7C15 - 2**64  # SplitMix64: the streams of one seed are this far apart


def uniform_draws(seeds: Tensor, count: int) -> Tensor:
    """Return ``count`` numbers in ``(0, 1)`` for each of ``seeds``, int64 ``[U]``: float64 ``[U, count]``.

    >>> uniform_draws(torch.tensor([1, 2]), 3).shape, bool((uniform_draws(torch.arange(9), 1) < 1).all())
    (torch.Size([2, 3]), True)
    """
    stream = mix64(seeds).unsqueeze(1) + _STEP * torch.arange(1, count + 1, device=seeds.device)
    return (((mix64(stream) >> 11) & (2**53 - 1)).double() + 0.5) / 2**53


def fresh_rows(init: Init, seeds: Tensor, width: int) -> Tensor:
    """Return one row for each of ``seeds``, int64 ``[U]``, drawn by ``init``: float32 ``[U, D]``."""
    if init.law == "uniform":
        return (init.scale * (2 * uniform_draws(seeds, width) - 1)).float()
    radius, angle = torch.split(uniform_draws(seeds, 2 * width), width, dim=1)
    rows: Tensor = init.scale * (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()  # Box and Muller
    return rows.float()
