"""The cross-entropy of positives against shared negatives, with its gradient, in blocks that stay in the cache.

PyTorch's own operators would write the table of scores, pairs × negatives, some ten times and keep three of them; here
a block of it is written once, and the gradient is ready when the loss is. Axes: ``B`` pairs, ``S`` shared negatives,
``D`` width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["shared_softmax"]

_BLOCK = 256


def shared_softmax(
    users: Tensor,
    positives: Tensor,
    negatives: Tensor,
    shift: Tensor | None = None,
    banned: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return the mean of ``log(e^positive + Σ e^(negative - shift)) - positive``, where scores are inner products.

    Shapes:
        users, positives: float32 ``[B, D]``; negatives: ``[S, D]``; shift: ``[S]``; banned: places of ``[B, S]`` that
        do not count, int64 rows in ascending order and columns. Returns a scalar.

    >>> user, items = torch.tensor([[1.0]]), torch.tensor([[0.0], [0.0]])
    >>> round(shared_softmax(user, items[:1], items).item(), 4)  # log 3
    1.0986
    """
    loss: Tensor = _SharedSoftmax.apply(users, positives, negatives, shift, banned)  # type: ignore[no-untyped-call]
    return loss


class _SharedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        positives: Tensor,
        negatives: Tensor,
        shift: Tensor | None,
        banned: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        to_users, to_positives, to_negatives = (torch.zeros_like(part) for part in (users, positives, negatives))
        won = (users * positives).sum(dim=1, keepdim=True)  # [B, 1]
        memory = users.new_empty(_BLOCK, len(negatives))
        total = won.new_zeros(())
        cuts, places = _cut(banned, len(users), len(negatives))
        for place, start in enumerate(range(0, len(users), _BLOCK)):
            rows = slice(start, start + _BLOCK)
            block, own = users[rows], won[rows]
            scores = memory[: len(block)]  # [b, S]
            torch.mm(block, negatives.T, out=scores)
            if shift is not None:
                scores -= shift
            if banned is not None:
                scores.view(-1).index_fill_(0, places[cuts[place] : cuts[place + 1]], float("-inf"))
            top = torch.maximum(scores.amax(dim=1, keepdim=True), own)  # [b, 1]
            scores.sub_(top).exp_()
            first = (own - top).exp_()
            mass = scores.sum(dim=1, keepdim=True).add_(first)
            total += (mass.log() + top - own).sum()
            share = 1 / (mass * len(users))
            pull = first.mul_(share).sub_(1 / len(users))  # gradient of the positive's score
            torch.addcmul(torch.mm(scores, negatives).mul_(share), pull, positives[rows], out=to_users[rows])
            torch.mul(block, pull, out=to_positives[rows])
            to_negatives.addmm_(scores.T, block * share)
        ctx.save_for_backward(to_users, to_positives, to_negatives)
        return total / len(users)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(part * gradients[0] for part in ctx.saved_tensors), None, None)


def _cut(banned: tuple[Tensor, Tensor] | None, pairs: int, shared: int) -> tuple[list[int], Tensor]:
    """Return where the banned places of each block begin and end, and their places within a flat block."""
    if banned is None:
        return [], torch.empty(0)
    rows, columns = banned
    starts = torch.arange(0, pairs + _BLOCK, _BLOCK, device=rows.device)
    return torch.searchsorted(rows, starts).tolist(), rows.remainder(_BLOCK) * shared + columns
