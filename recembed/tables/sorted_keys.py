"""Finding raw keys in a sorted array with plain torch ops: the lookup of the methods that give ids rows as they come."""

import torch
from torch import Tensor

__all__ = ["find_sorted"]


def find_sorted(sorted_keys: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place of each key in ``sorted_keys`` and whether it is there.

    Shapes:
        sorted_keys: int64 ``[K]``, rising, ``K >= 1``; keys: int64 ``[*S]``. Returns int64 ``[*S]`` in ``0 .. K-1``
        (any place where the key is not there) and bool ``[*S]``.

    >>> places, found = find_sorted(torch.tensor([-5, 2, 9]), torch.tensor([9, 3, 100]))
    >>> places.tolist(), found.tolist()
    ([2, 2, 2], [True, False, False])
    """
    keys = keys.clone(memory_format=torch.contiguous_format)  # contiguous() would refuse a batch of one in export
    places = torch.searchsorted(sorted_keys, keys).clamp(max=sorted_keys.shape[0] - 1)
    return places, sorted_keys[places] == keys
