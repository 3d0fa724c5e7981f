"""``SparseDataDist``: a lookup over processes that has begun, its addresses on their way to those that hold the rows.

Axes: ``N`` addresses, ``G`` bags.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

__all__ = ["Requests", "SparseDataDist"]

Requests = Mapping[int, tuple[Tensor, Tensor | None]]
"""By width of the stack: addresses, int64 ``[N]``, and where each bag begins, ``[G + 1]``, or None for one row each."""


class SparseDataDist(Protocol):
    """What ``RowStore.start_sparse_data_dist`` began. The sizes of the exchange go out first, then the addresses."""

    def wait(self) -> None:
        """Wait for the sizes and send the addresses, once; ``RowStore.gather`` does it where nobody did."""
