"""One layer of NGCF in blocks of rows that stay in the cache, with its gradient.

PyTorch's own operators would write some ten arrays of all nodes per layer and keep most of them for the gradient; here
a layer keeps its two inputs and three bits per number. Axes: ``N`` rows, ``d`` width in, ``w`` width out.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["SLOPE", "dropout_mask", "message_layer"]

SLOPE = 0.2
_BLOCK = 4096


def dropout_mask(rows: int, width: int, rate: float, device: torch.device) -> tuple[Tensor | None, float]:
    """Return which numbers are dropped, bool ``[rows, width]``, and the factor of the others; ``rate`` in steps of 1/256.

    One random byte a number is some ten times as quick as one random float.
    """
    dropped = round(rate * 256)
    if dropped == 0:
        return None, 1.0
    words = torch.empty(-(-rows * width // 8), dtype=torch.int64, device=device).random_(-(2**63), None)
    mask = words.view(torch.uint8)[: rows * width] < dropped
    return mask.view(rows, width), 256 / (256 - dropped)


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
    mask, factor = dropout_mask(len(received), len(sums[0]), rate, received.device)
    layer: Tensor = _Layer.apply(received, vectors, *sums, *products, mask, factor)  # type: ignore[no-untyped-call]
    return layer


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, m: Tensor, e: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, *drop: Any
    ) -> Tensor:
        mask, factor = drop
        out = m.new_empty(len(m), len(w1))
        signs = torch.empty(1 if b1 is None else 2, *out.shape, dtype=torch.bool, device=m.device)
        for start in range(0, len(m), _BLOCK):
            rows = slice(start, start + _BLOCK)
            own, product = m[rows], m[rows] * e[rows]
            if b1 is None:
                sides = [F.linear(own + e[rows], w1).addmm_(product, w2.T)]
            else:
                sides = [F.linear(own, w1, b1), F.linear(product, w2, b2)]
            for place, side in enumerate(sides):
                torch.gt(side, 0, out=signs[place, rows])
                F.leaky_relu_(side, SLOPE)
            total = sides[0] if b1 is None else sides[0].add_(sides[1])
            out[rows] = total if mask is None else total.masked_fill_(mask[rows], 0.0).mul_(factor)
        ctx.save_for_backward(m, e, w1, w2, signs, mask)
        ctx.factor = factor
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        m, e, w1, w2, signs, mask = ctx.saved_tensors
        paper = len(signs) == 1
        to_m, to_e = torch.empty_like(m), torch.empty_like(e)
        to_w1, to_w2 = torch.zeros_like(w1), torch.zeros_like(w2)
        biases = torch.zeros(2, len(w1), device=m.device)
        for start in range(0, len(m), _BLOCK):
            rows = slice(start, start + _BLOCK)
            gradient = gradients[0][rows]
            if mask is not None:
                gradient = gradient.masked_fill(mask[rows], 0.0).mul_(ctx.factor)
            leaked = gradient * SLOPE
            sides = [torch.where(sign[rows], gradient, leaked) for sign in signs]
            first, second = sides[0], sides[-1]
            biases[0] += first.sum(0)
            biases[1] += second.sum(0)
            own, other = m[rows], e[rows]
            to_w1.addmm_(first.T, own + other if paper else own)
            to_w2.addmm_(second.T, own * other)
            to_sum, to_product = first @ w1, second @ w2
            torch.addcmul(to_sum, to_product, other, out=to_m[rows])
            torch.mul(to_product, own, out=to_e[rows])
            if paper:
                to_e[rows] += to_sum
        if paper:
            return to_m, to_e, to_w1, None, to_w2, None, None, None
        return to_m, to_e, to_w1, biases[0], to_w2, biases[1], None, None
