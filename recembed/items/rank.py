"""RankMe: how many directions vectors really use.

Axes: ``N`` vectors, ``D`` width.
"""

import torch
from torch import Tensor

__all__ = ["rank_me"]


def rank_me(vectors: Tensor) -> float:
    """Return RankMe (Garrido et al., ICML 2023): ``exp`` of the entropy of the singular values' shares, 1 .. ``D``.

    Shapes:
        vectors: floats ``[N, D]``.

    >>> rank_me(torch.eye(4)), rank_me(torch.ones(5, 3))
    (4.0, 1.0)
    """
    values = torch.linalg.svdvals(vectors.double())
    share = values / values.sum().clamp(min=1e-300)
    return round(float(torch.special.entr(share).sum().exp()), 6)
