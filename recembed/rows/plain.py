"""Rows in plain torch tensors: every platform, every optimiser rule, and the form that ``torch.export`` takes.

Axes: ``N`` addresses, ``G`` bags, ``D`` width, ``R`` rows of a stack, ``U`` unique rows.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.rows.base import RowStore
from recembed.rows.huge_pages import on_huge_pages
from recembed.rows.rounding import Rounding

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
            stack = torch.zeros(rows, width, dtype=self.row_dtype, device=device)
            self.register_buffer(f"stack_{width}", stack, persistent=False)
            for state, vector in states.items():
                shape = (rows, width) if vector else (rows,)
                self.register_buffer(f"{state}_{width}", torch.zeros(shape, device=device), persistent=False)
            on_huge_pages((self.stack(width), *self.stack_states(width).values()))
        if self.row_dtype != torch.float32 and self.optimizer is not None:
            for width in self.stack_rows:
                tables = [table for table in self.tables.values() if table.embedding_dim == width]
                self.add_module(f"rounding_{width}", Rounding(tables, self.row_dtype, seed=self.seed, device=device))

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
    def update(
        self, width: int, addresses: Tensor, gradient: Tensor, bags: Tensor | None = None, count: Tensor | None = None
    ) -> None:
        """Apply the row rule: gradients of equal addresses are summed first.

        ``count`` is that of the lookup, for the noise of rows held in fewer bits than float32.

        Shapes:
            addresses: int64 ``[N]``; gradient: float32 ``[N, D]``, or ``[G, D]`` with ``bags``, int64 ``[N]``, the bag
            of each address.
        """
        assert self.optimizer is not None
        unique, total = _by_address(addresses, gradient, bags)  # [U], [U, D]
        stack, states = self.stack(width), self.stack_states(width)
        if self.optimizer.moves_every_row:
            rows = stack.float()  # the stack itself where it is float32
            whole = torch.zeros_like(rows).index_copy_(0, unique, total)  # [R, D]
            self.optimizer.step(rows, whole, states, self.learning_rate)  # in place
            if rows is not stack:
                stack.copy_(self._rounded(rows, torch.arange(len(rows), device=rows.device), width, count))
            return
        current = {state: values.index_select(0, unique) for state, values in states.items()}
        rows = self.optimizer.step(stack.index_select(0, unique).float(), total, current, self.learning_rate)
        _put(stack, unique, self._rounded(rows, unique, width, count))
        for state, values in states.items():
            _put(values, unique, current[state])

    def _rounded(self, rows: Tensor, addresses: Tensor, width: int, count: Tensor | None) -> Tensor:
        if count is None:
            return rows
        rounded: Tensor = self.get_submodule(f"rounding_{width}")(rows, addresses, count)
        return rounded


def _by_address(addresses: Tensor, gradient: Tensor, bags: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the unique addresses ``[U]`` in rising order, and the sum of the gradients of each, ``[U, D]``."""
    bits = max(len(addresses) - 1, 1).bit_length()
    keys = (addresses << bits) | torch.arange(len(addresses), device=addresses.device)  # equal ones stay in their order
    if keys.device.type == "cpu":
        keys.numpy().sort()  # with vector instructions where the processor has them
    else:
        keys = keys.sort().values
    order = keys & ((1 << bits) - 1)
    unique, counts = torch.unique_consecutive(keys >> bits, return_counts=True)
    starts = counts.cumsum(0) - counts  # [U]
    read = order if bags is None else bags[order]  # [N]
    return unique, F.embedding_bag(read, gradient, starts, mode="sum")


def _gather(stack: Tensor, addresses: Tensor, offsets: Tensor | None) -> Tensor:
    if offsets is None:
        return F.embedding(addresses, stack).float()  # [N, D]
    if stack.dtype != torch.float32:  # of such a stack torch's sums would be rounded too
        rows, addresses = F.embedding(addresses, stack).float(), torch.arange(len(addresses), device=addresses.device)
        return F.embedding_bag(addresses, rows, offsets, mode="sum", include_last_offset=True)  # [G, D]
    return F.embedding_bag(addresses, stack, offsets, mode="sum", include_last_offset=True)  # [G, D]


def _put(stack: Tensor, places: Tensor, rows: Tensor) -> None:
    """Write ``rows`` at ``places`` of the stack; in memory each row goes as one piece, in some half of torch's time."""
    if stack.device.type != "cpu" or stack.dtype == torch.bfloat16 or stack.numel() == len(stack):
        stack.index_copy_(0, places, rows)  # elsewhere; NumPy has no bfloat16; single numbers are as fast
        return
    row = np.dtype((np.void, stack.element_size() * stack.shape[1]))
    part = rows.to(stack.dtype).contiguous()
    np.put(stack.view(-1).numpy().view(row), places.numpy(), part.view(-1).numpy().view(row), mode="clip")


def _bag_of_each(offsets: Tensor, count: int) -> Tensor:
    """Return the bag of each address, int64 ``[N]``."""
    bags = torch.arange(len(offsets) - 1, device=offsets.device)
    return bags.repeat_interleave(offsets.diff(), output_size=count)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, trigger: Tensor, addresses: Tensor, offsets: Tensor | None, store: PlainStore, width: int
    ) -> Tensor:
        ctx.store, ctx.width = store, width
        ctx.count = None if store._lookups is None else store._lookups.clone()
        ctx.save_for_backward(addresses, offsets)
        return _gather(store.stack(width), addresses, offsets)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        addresses, offsets = ctx.saved_tensors
        bags = None if offsets is None else _bag_of_each(offsets, len(addresses))
        ctx.store.update(ctx.width, addresses, gradient.contiguous(), bags, ctx.count)
        return None, None, None, None, None
