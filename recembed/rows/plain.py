"""Rows in plain torch tensors: every platform, every optimiser rule, and the form that ``torch.export`` takes.

Axes: ``N`` addresses, ``G`` bags, ``D`` width, ``R`` rows of a stack, ``U`` unique rows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.rows.base import RowStore

__all__ = ["PlainStore"]


class PlainStore(RowStore):
    """Row store ``torch``: stacks are buffers, the row rule runs in backward on the unique rows of the batch.

    >>> from recembed.rows.base import RowTable
    >>> from recembed.rows.optimizers import SGD
    >>> store = PlainStore([RowTable("item", 3, 2)], optimizer=SGD(learning_rate=1.0))
    >>> before = store.rows("item").clone()
    >>> store(torch.tensor([1, 1]), 2).sum().backward()
    >>> (before - store.rows("item")).round().tolist()
    [[0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]
    """

    def _allocate(self, device: torch.device) -> None:
        self._trigger = torch.zeros((), requires_grad=True)  # makes autograd call backward; itself never moves
        states = self.optimizer.states if self.optimizer else {}
        for width, rows in self.stack_rows.items():
            self.register_buffer(f"stack_{width}", torch.zeros(rows, width, device=device), persistent=False)
            for state, vector in states.items():
                shape = (rows, width) if vector else (rows,)
                self.register_buffer(f"{state}_{width}", torch.zeros(shape, device=device), persistent=False)

    def stack(self, width: int) -> Tensor:
        """Return the live rows of one width."""
        return self.get_buffer(f"stack_{width}")

    def stack_states(self, width: int) -> dict[str, Tensor]:
        """Return the live optimiser states of one width."""
        return {
            state: self.get_buffer(f"{state}_{width}") for state in (self.optimizer.states if self.optimizer else ())
        }

    def forward(self, addresses: Tensor, width: int, offsets: Tensor | None = None) -> Tensor:
        """Look up rows, or sums of bags; see ``RowStore.forward``."""
        if torch.is_grad_enabled() and self.optimizer is not None:
            looked_up: Tensor = _Lookup.apply(self._trigger, addresses, offsets, self, width)  # type: ignore[no-untyped-call]
            return looked_up
        return _gather(self.stack(width), addresses, offsets)

    @torch.no_grad()
    def update(self, width: int, addresses: Tensor, gradient: Tensor) -> None:
        """Apply the row rule: gradients of equal addresses are summed first."""
        assert self.optimizer is not None
        unique, place = torch.unique(addresses, return_inverse=True)  # [U], [N]
        total = torch.zeros(len(unique), width, device=gradient.device).index_add_(0, place, gradient)  # [U, D]
        stack, states = self.stack(width), self.stack_states(width)
        current = {state: values[unique] for state, values in states.items()}
        stack[unique] = self.optimizer.step(stack[unique], total, current, self.learning_rate)
        for state, values in states.items():
            values[unique] = current[state]


def _gather(stack: Tensor, addresses: Tensor, offsets: Tensor | None) -> Tensor:
    if offsets is None:
        return F.embedding(addresses, stack)  # [N, D]
    return F.embedding_bag(addresses, stack, offsets, mode="sum", include_last_offset=True)  # [G, D]


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, trigger: Tensor, addresses: Tensor, offsets: Tensor | None, store: PlainStore, width: int
    ) -> Tensor:
        ctx.store, ctx.width = store, width
        ctx.save_for_backward(addresses, offsets)
        return _gather(store.stack(width), addresses, offsets)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        addresses, offsets = ctx.saved_tensors
        if offsets is not None:
            gradient = gradient.repeat_interleave(offsets.diff(), dim=0, output_size=len(addresses))  # [N, D]
        ctx.store.update(ctx.width, addresses, gradient)
        return None, None, None, None, None
