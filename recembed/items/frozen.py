"""``FrozenMatrix``: vectors that a model reads and never moves, mapped from a file where they come from one.

Axes: ``N`` items, ``D`` width.
"""

import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FrozenMatrix"]

_CHUNK = 1 << 15


class FrozenMatrix(nn.Module):
    """Vectors of items, brought to mean 0 per column and root mean square 1.

    The matrix is no part of a checkpoint: it is read from the cache again. Its mean and scale are, so that items that come
    later are read as those of the training. Copies of the module share the matrix.

    Args:
        matrix: float32 ``[N, D]``.
        present: bool ``[N]``.
        space: Digest of the encoder; a checkpoint fits vectors of one space alone.

    Shapes:
        rows: int64 ``[*S]``. Returns float32 ``[*S, D]``.

    >>> frozen = FrozenMatrix(np.array([[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]], np.float32), np.array([True, True, False]), "a")
    >>> frozen(torch.tensor([0, 1])).tolist()
    [[-1.4142135381698608, 0.0], [1.4142135381698608, 0.0]]
    """

    def __init__(self, matrix: np.ndarray, present: np.ndarray, space: str) -> None:
        super().__init__()
        self.width = matrix.shape[1]
        mean, scale = _moments(matrix, np.flatnonzero(present))
        self.register_buffer("matrix", torch.from_numpy(matrix), persistent=False)
        self.register_buffer("present", torch.from_numpy(present.copy()), persistent=False)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer(f"scale_in_space_{space}", torch.tensor(scale, dtype=torch.float32))
        self._scale = f"scale_in_space_{space}"

    def forward(self, rows: Tensor) -> Tensor:
        """Return the vectors of items."""
        vectors = F.embedding(rows, self.get_buffer("matrix"))  # [*S, D]
        return (vectors - self.get_buffer("mean")) * self.get_buffer(self._scale)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy all but the matrix."""
        matrix = self.get_buffer("matrix")
        memo[id(matrix)] = matrix
        copied = self.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return copied


def _moments(matrix: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mean of each column and 1 / root mean square of what is left, over ``rows``."""
    total, square = np.zeros(matrix.shape[1]), np.zeros(matrix.shape[1])
    for start in range(0, len(rows), _CHUNK):
        part = np.asarray(matrix[rows[start : start + _CHUNK]], np.float64)
        total += part.sum(axis=0)
        square += (part**2).sum(axis=0)
    count = max(len(rows), 1)
    mean = total / count
    variance = float(np.maximum(square / count - mean**2, 0).mean())
    return mean.astype(np.float32), variance**-0.5 if variance > 1e-12 else 1.0
