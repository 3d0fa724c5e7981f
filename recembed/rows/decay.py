"""An L2 penalty on looked-up rows, without a term in the loss.

Axes: ``N`` addresses, ``D`` width.
"""

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["decay_lookups"]


class _DecayLookups(torch.autograd.Function):
    """Identity whose backward adds ``coefficient * rows``: the gradient of ``coefficient / 2 * |rows|**2``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, coefficient: float) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.coefficient = coefficient
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return torch.add(gradient, rows, alpha=ctx.coefficient), None


def decay_lookups(rows: Tensor, coefficient: float) -> Tensor:
    """Return ``rows`` unchanged; backward adds the gradient of ``coefficient / 2 * sum(rows**2)``.

    An L2 penalty on looked-up rows that costs no term in the loss and never touches other rows.

    Shapes:
        rows: float32 ``[N, D]``.

    >>> rows = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> decay_lookups(rows, 0.5).sum().backward(); rows.grad.tolist()
    [[1.5, 2.0]]
    """
    if coefficient == 0.0 or not torch.is_grad_enabled() or not math.isfinite(coefficient):
        return rows
    decayed: Tensor = _DecayLookups.apply(rows, coefficient)  # type: ignore[no-untyped-call]
    return decayed
