"""Dot products of all pairs of vectors.

Axes: ``B`` rows, ``F`` vectors of a row, ``D`` their width, ``P = F (F - 1) / 2`` pairs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PairwiseDot"]


class _LowerTriangle(torch.autograd.Function):
    """The chosen entries of ``X X'``; the gradient is one product, since ``X X'`` is symmetric.

    Autograd's own gradient of ``bmm(x, x.mT)`` takes two products with a transposed operand each, and on CPU was
    measured five times slower (27 vectors of 16 numbers, 4,096 rows).
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, places: Tensor, pairs: Tensor) -> Tensor:
        ctx.save_for_backward(vectors, pairs)
        gram = torch.bmm(vectors, vectors.mT.contiguous())  # [B, F, F]
        return gram.flatten(1).index_select(1, places)  # [B, P]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        vectors, pairs = ctx.saved_tensors
        padded = functional.pad(gradients[0], (0, 1))  # [B, P + 1], 0 for the diagonal
        symmetric = padded.index_select(1, pairs.flatten()).view(vectors.shape[0], *pairs.shape)  # [B, F, F]
        return torch.bmm(symmetric.to(vectors.dtype), vectors), None, None  # [B, F, D]


class PairwiseDot(nn.Module):
    """The lower triangle of the Gram matrix without its diagonal, by rows: (1, 0), (2, 0), (2, 1), (3, 0) and so on.

    Shapes:
        vectors: ``[B, F, D]``. Returns ``[B, F (F - 1) / 2]``.

    >>> PairwiseDot(3)(torch.tensor([[[1.0], [2.0], [5.0]]]))
    tensor([[ 2.,  5., 10.]])
    """

    places: Tensor
    pairs: Tensor

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        row, column = torch.tril_indices(num_vectors, num_vectors, -1)
        self.out_width = num_vectors * (num_vectors - 1) // 2
        pairs = torch.full((num_vectors, num_vectors), self.out_width)
        pairs[row, column] = pairs[column, row] = torch.arange(self.out_width)
        self.register_buffer("places", row * num_vectors + column, persistent=False)
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Multiply."""
        dots: Tensor = _LowerTriangle.apply(vectors, self.places, self.pairs)  # type: ignore[no-untyped-call]
        return dots  # [B, P]
