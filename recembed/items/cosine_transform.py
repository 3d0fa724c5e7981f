"""The discrete cosine transform as a matrix."""

import math

import torch
from torch import Tensor

__all__ = ["cosine_transform"]


def cosine_transform(width: int) -> Tensor:
    """Return the orthonormal DCT-II of ``width`` numbers, float32 ``[width, width]``; its inverse is its transpose.

    >>> [[round(x, 4) for x in row] for row in cosine_transform(2).tolist()]
    [[0.7071, 0.7071], [0.7071, -0.7071]]
    """
    places, waves = torch.arange(width, dtype=torch.float64), torch.arange(width, dtype=torch.float64)[:, None]
    matrix: Tensor = (2 / width) ** 0.5 * torch.cos(math.pi / width * (places + 0.5) * waves)
    matrix[0] *= 0.5**0.5
    return matrix.float()
