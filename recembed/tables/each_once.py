"""Each id of a batch once, for decodes that cost more than finding the repetitions.

Axes: ``N`` ids, ``U`` distinct ids, ``d`` width of a row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["each_once"]


def each_once(ids: Tensor, rows: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return the distinct ids, their rows, and where each id of the batch is among them.

    The rows are those of one place that has the id: gradients go to that place, and so to the same row of the store.

    Shapes:
        ids: int64 ``[*S]``; rows: ``[*S, d]`` each. Returns int64 ``[U]``, ``[U, d]`` each, int64 ``[*S]``.

    >>> distinct, (rows,), place = each_once(torch.tensor([7, 3, 7]), [torch.tensor([[1.0], [2.0], [1.0]])])
    >>> distinct.tolist(), rows.tolist(), place.tolist()
    ([3, 7], [[2.0], [1.0]], [1, 0, 1])
    """
    distinct, place = torch.unique(ids, return_inverse=True)
    every = torch.arange(ids.numel(), device=ids.device)
    one = torch.empty_like(distinct).scatter_(0, place.flatten(), every)  # [U]
    return distinct, [row.flatten(0, -2).index_select(0, one) for row in rows], place
