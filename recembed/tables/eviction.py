"""Which ids enter a table of fixed size and which leave it: the policies and filters of TorchRec's managed collision.

Axes: ``I`` ids.
"""

from typing import Literal

from torch import Tensor

__all__ = ["AdmissionFilter", "EvictionPolicy", "admitted", "eviction_scores"]

EvictionPolicy = Literal["lfu", "lru", "distance_lfu"]
AdmissionFilter = Literal["count", "average", "dynamic", "probabilistic"]


def eviction_scores(
    policy: EvictionPolicy, counts: Tensor, last_access: Tensor, now: Tensor, decay_exponent: float
) -> Tensor:
    """Return how much each id deserves its row; the highest stay.

    ``lfu``: its count; ``lru``: ``(now - last_access + 1) ** -decay_exponent``; ``distance_lfu``: their product.

    Shapes:
        counts, last_access: int64 ``[I]``; now: int64 scalar. Returns float64 ``[I]``.

    >>> import torch
    >>> counts, last = torch.tensor([8, 3]), torch.tensor([7, 10])
    >>> eviction_scores("distance_lfu", counts, last, torch.tensor(10), 1.0).tolist()
    [2.0, 3.0]
    """
    if policy == "lfu":
        return counts.double()
    recency = (now - last_access + 1).double().pow(-decay_exponent)
    return recency if policy == "lru" else counts * recency


def admitted(kind: AdmissionFilter, counts: Tensor, *, threshold: float, draws: Tensor) -> Tensor:
    """Return which new ids may compete for a row, by their counts since the last admission.

    ``count``: at least ``threshold``; ``average``: more than the mean; ``dynamic``: more than ``threshold`` times the
    mean; ``probabilistic``: each occurrence admits with probability ``threshold``.

    Shapes:
        counts: int64 ``[I]``; draws: float64 ``[I]`` in ``[0, 1)``. Returns bool ``[I]``.

    >>> import torch
    >>> counts = torch.tensor([1, 2, 6])
    >>> admitted("average", counts, threshold=0, draws=torch.zeros(3)).tolist()
    [False, False, True]
    """
    if kind == "count":
        return counts >= threshold
    if kind == "probabilistic":
        return draws < 1 - (1 - threshold) ** counts
    mean = counts.sum() / max(len(counts), 1)
    return counts > (mean if kind == "average" else threshold * mean)
