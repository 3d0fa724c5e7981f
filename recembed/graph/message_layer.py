"""One layer of NGCF in blocks of rows that stay in the cache, with its gradient.

PyTorch's own operators would write some ten arrays of all nodes per layer and keep most of them for the gradient; here
a layer keeps its two inputs, its output and a byte per number. Axes: ``N`` rows, ``d`` width in, ``w`` width out.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["SLOPE", "dropout_mask", "message_layer"]

SLOPE = 0.2
_BLOCK = 1024


def dropout_mask(rows: int, width: int, rate: float, device: torch.device) -> tuple[Tensor | None, float]:
    """Return which numbers are kept, uint8 ``[rows, width]``, and the factor of them; ``rate`` in steps of 1/256.

    One random byte a number is some ten times as quick as one random float.
    """
    dropped = round(rate * 256)
    if dropped == 0:
        return None, 1.0
    words = torch.empty(-(-rows * width // 8), dtype=torch.int64, device=device).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: rows * width].clamp_(dropped - 1, dropped).sub_(dropped - 1)
    return kept.view(rows, width), 256 / (256 - dropped)


def message_layer(
    received: Tensor,
    vectors: Tensor,
    sums: tuple[Tensor, Tensor | None],
    products: tuple[Tensor, Tensor | None],
    rate: float = 0.0,
) -> Tensor:
    """Return the vectors after one layer, ``[N, w]``.

    With biases this is the code's form, ``LeakyReLU(m W1 + b1) + LeakyReLU((m ⊙ e) W2 + b2)``; without, the paper's,
    ``LeakyReLU((m + e) W1 + (m ⊙ e) W2)``. A share ``rate`` of the numbers is dropped, the rest scaled up.

    Shapes:
        received (``m``) and vectors (``e``): ``[N, d]``; sums and products: a matrix ``[w, d]`` and a bias ``[w]``.
    """
    if torch.compiler.is_exporting():  # such a graph takes plain operators alone, and serves without dropout
        return _plain(received, vectors, sums, products)
    kept, factor = dropout_mask(len(received), len(sums[0]), rate, received.device)
    layer: Tensor
    if sums[1] is None:
        matrix = torch.cat([sums[0], products[0]], dim=1) * factor  # [w, 2d]; LeakyReLU keeps a factor above 0
        layer = _PaperLayer.apply(received, vectors, matrix, kept)  # type: ignore[no-untyped-call]
    else:
        layer = _CodeLayer.apply(received, vectors, *sums, *products, kept, factor)  # type: ignore[no-untyped-call]
    return layer


def _plain(m: Tensor, e: Tensor, sums: tuple[Tensor, Tensor | None], products: tuple[Tensor, Tensor | None]) -> Tensor:
    """Return the layer without dropout."""
    if sums[1] is None:
        return F.leaky_relu(F.linear(m + e, sums[0]) + F.linear(m * e, products[0]), SLOPE)
    return F.leaky_relu(F.linear(m, *sums), SLOPE) + F.leaky_relu(F.linear(m * e, *products), SLOPE)


def _blocks(rows: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK)]


class _PaperLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, m: Tensor, e: Tensor, matrix: Tensor, kept: Tensor | None) -> Tensor:
        out, pair = m.new_empty(len(m), len(matrix)), m.new_empty(_BLOCK, matrix.shape[1])
        for rows in _blocks(len(m)):
            block = out[rows]
            torch.mm(_side_by_side(m[rows], e[rows], pair), matrix.T, out=block)
            F.leaky_relu_(block, SLOPE)
            if kept is not None:
                block *= kept[rows].float()
        ctx.save_for_backward(m, e, matrix, out, kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        m, e, matrix, out, kept = ctx.saved_tensors
        to_m, to_e, to_matrix = torch.empty_like(m), torch.empty_like(e), torch.zeros_like(matrix)
        pair, to_pair = (m.new_empty(_BLOCK, matrix.shape[1]) for _ in range(2))
        for rows in _blocks(len(m)):
            own, other = m[rows], e[rows]
            gradient = torch.ops.aten.leaky_relu_backward(gradients[0][rows], out[rows], SLOPE, True)
            if kept is not None:
                gradient *= kept[rows].float()
            to_matrix.addmm_(gradient.T, _side_by_side(own, other, pair))
            back = to_pair[: len(own)]
            torch.mm(gradient, matrix, out=back)
            to_sum, to_product = back.chunk(2, dim=1)
            torch.addcmul(to_sum, to_product, other, out=to_m[rows])
            torch.addcmul(to_sum, to_product, own, out=to_e[rows])
        return to_m, to_e, to_matrix, None


def _side_by_side(m: Tensor, e: Tensor, memory: Tensor) -> Tensor:
    """Return ``[m + e, m ⊙ e]`` of a block, written to ``memory``."""
    pair = memory[: len(m)]
    first, second = pair.chunk(2, dim=1)
    torch.add(m, e, out=first)
    torch.mul(m, e, out=second)
    return pair


class _CodeLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        m: Tensor,
        e: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        kept: Tensor | None,
        factor: float,
    ) -> Tensor:
        out = m.new_empty(len(m), len(w1))
        signs = torch.empty(2, *out.shape, dtype=torch.bool, device=m.device)
        for rows in _blocks(len(m)):
            sides = F.linear(m[rows], w1, b1), F.linear(m[rows] * e[rows], w2, b2)
            for place, side in enumerate(sides):
                torch.gt(side, 0, out=signs[place, rows])
                F.leaky_relu_(side, SLOPE)
            torch.add(*sides, out=out[rows])
            if kept is not None:
                out[rows] *= kept[rows].float().mul_(factor)
        ctx.save_for_backward(m, e, w1, w2, signs, kept)
        ctx.factor = factor
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        m, e, w1, w2, signs, kept = ctx.saved_tensors
        to_m, to_e = torch.empty_like(m), torch.empty_like(e)
        to_w1, to_w2, biases = torch.zeros_like(w1), torch.zeros_like(w2), w1.new_zeros(2, len(w1))
        for rows in _blocks(len(m)):
            gradient = gradients[0][rows]
            if kept is not None:
                gradient = gradient * kept[rows].float().mul_(ctx.factor)
            first, second = (sign[rows].float().mul_(1 - SLOPE).add_(SLOPE).mul_(gradient) for sign in signs)
            biases[0] += first.sum(0)
            biases[1] += second.sum(0)
            own, other = m[rows], e[rows]
            to_w1.addmm_(first.T, own)
            to_w2.addmm_(second.T, own * other)
            to_product = second @ w2
            torch.addcmul(first @ w1, to_product, other, out=to_m[rows])
            torch.mul(to_product, own, out=to_e[rows])
        return to_m, to_e, to_w1, biases[0], to_w2, biases[1], None, None
