"""The best items of a block of users, exactly and with ties settled, faster than sorting all scores.

Axes: ``B`` users of a block, ``I`` items, ``C`` chunks of items, ``K`` items to return.
"""

import torch
from torch import Tensor

from recembed.errors import DataError

__all__ = ["CHUNK", "top_items"]

CHUNK = 32
"""Items of one chunk; blocks of scores are a whole number of chunks wide."""


def top_items(scores: Tensor, k: int) -> Tensor:
    """Return the items with the ``k`` highest scores, best first; of equal scores the lower item goes first.

    The items that win lie in the ``k`` chunks with the best best item, so only those chunks are sorted.

    Shapes:
        scores: float32 ``[B, I]``, ``I`` a multiple of ``CHUNK``; ``-inf`` marks an item that must not be
        returned. Returns int64 ``[B, k]``, ``-1`` where no item is left.

    Raises:
        DataError: a score is NaN.

    >>> scores = torch.full((1, 32), float("-inf"))
    >>> scores[0, [3, 7, 20]] = torch.tensor([0.5, 2.0, 0.5])
    >>> top_items(scores, 4)
    tensor([[ 7,  3, 20, -1]])
    """
    rows, width = scores.shape
    chunks = scores.view(rows, width // CHUNK, CHUNK)  # [B, C, CHUNK]
    maxima = chunks.amax(dim=2)  # [B, C]; the greatest of NaN and others is NaN
    if maxima.isnan().any():
        raise DataError("a score is NaN: the vectors of users or items are not finite; train again")
    if chunks.shape[1] > k:
        best = _ordered(maxima).topk(k, dim=1).indices.sort(dim=1).values  # [B, K], chunks in item order
        items = (best[:, :, None] * CHUNK + torch.arange(CHUNK)).view(rows, -1)  # [B, K * CHUNK]
        candidates = scores.gather(1, items)
    else:
        items, candidates = torch.arange(width).expand(rows, width), scores
    if candidates.shape[1] < k:  # fewer items than asked for
        missing = (0, k - candidates.shape[1])
        candidates = torch.nn.functional.pad(candidates, missing, value=float("-inf"))
        items = torch.nn.functional.pad(items, missing)
    places = _ordered(candidates).topk(k, dim=1).indices  # [B, K]
    return items.gather(1, places).masked_fill_(candidates.gather(1, places) == float("-inf"), -1)


def _ordered(values: Tensor) -> Tensor:
    """Return int64 keys, no two of a row alike, that order float32 values and then places, the first place highest."""
    bits = (values + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    places = torch.arange(values.shape[1] - 1, -1, -1)
    return (bits.long() << 32) | places
