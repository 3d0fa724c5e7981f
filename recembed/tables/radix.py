"""An id as the digits of a number: complementary partitions, in which no two ids agree in every digit."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["balanced_radices", "digits"]


def balanced_radices(ids: int, count: int) -> tuple[int, ...]:
    """Return ``count`` radices near ``ids ** (1 / count)`` whose product is at least ``ids``; the last is least.

    >>> balanced_radices(1000, 3), balanced_radices(10, 2), balanced_radices(2, 3)
    ((10, 10, 10), (4, 3), (2, 1, 1))
    """
    radices = []
    for left in range(count, 0, -1):
        radix = _root(ids, left)
        radices.append(radix)
        ids = math.ceil(ids / radix)
    return tuple(radices)


def _root(ids: int, degree: int) -> int:
    """Return the least whole number whose power reaches ``ids`` (powers of floats round either way)."""
    root: int = max(1, round(ids ** (1 / degree)))
    while math.pow(root, degree) < ids:
        root += 1
    while root > 1 and math.pow(root - 1, degree) >= ids:
        root -= 1
    return root


def digits(ids: Tensor, radices: Sequence[int]) -> Tensor:
    """Return the digits of ``ids``, least significant first, under ``radices``.

    Shapes:
        ids: int64 ``[*S]``, each below the product of ``radices``. Returns int64 ``[*S, len(radices)]``.

    >>> digits(torch.tensor([47]), (10, 5)).tolist()
    [[7, 4]]
    """
    columns = []
    for radix in radices[:-1]:
        columns.append(ids % radix)
        ids = ids // radix
    return torch.stack([*columns, ids], dim=-1)
