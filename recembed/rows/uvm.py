"""Rows in the host's memory, of which a GPU caches those in use: for tables beyond the GPU's memory.

FBGEMM holds such rows in unified virtual memory (UVM) and a fifth of them in a cache on the GPU, least recently used out
first; TorchRec's name for it is ``fused_uvm_caching``. What a row became since it entered the cache stands in the cache alone,
so the rows that a store hands out would be old, and what is written to them would not be read, if nobody saw to it; here
the cache is written back before rows are handed out, and emptied before the next lookup.

Axes: ``N`` addresses, ``G`` bags, ``D`` width, ``R`` rows of a stack.
"""

import torch
from torch import Tensor

from recembed.rows.torchrec import TorchRecStore

__all__ = ["UvmStore"]


class UvmStore(TorchRecStore):
    """Row store ``torchrec_uvm``: the kernels of ``TorchRecStore`` over rows in the host's memory, cached on the GPU.

    States of row-wise Adagrad, one number a row, lie on the GPU; Adagrad's lie in the host's memory and are not cached.
    Rows may be written between steps, and read at any time; each reading writes the cache back, so a table method
    that reads its rows at every step (CAFE, zero-collision) gains little from it.
    """

    cached = True

    def _allocate(self, device: torch.device) -> None:
        self._moved, self._handed_out = set[int](), set[int]()
        super()._allocate(device)

    def stack(self, width: int) -> Tensor:
        """Return the live rows of one width, what the cache holds of them written back."""
        if width in self._moved:
            self._kernels[width].flush()
            self._moved.discard(width)
        self._handed_out.add(width)
        return super().stack(width)

    def forward(self, addresses: Tensor, width: int, offsets: Tensor | None = None) -> Tensor:
        """Look up rows, or sums of bags; see ``RowStore.forward``."""
        if width in self._handed_out:  # whoever has them may have written to them: the cache is read in anew
            if width in self._moved:
                self._kernels[width].flush()
            self._kernels[width].reset_cache_states()
            self._handed_out.discard(width)
            self._moved.discard(width)
        rows = super().forward(addresses, width, offsets)
        if rows.requires_grad:
            rows.register_hook(lambda _: self._moved.add(width))  # type: ignore[no-untyped-call]  # the kernel moves them next
        return rows
