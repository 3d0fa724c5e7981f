"""Row addresses for reports and files: in memory, wherever the table trains."""

from itertools import chain

from torch import Tensor

from recembed.tables.base import Table

__all__ = ["addresses_in_memory"]


def addresses_in_memory(table: Table, ids: Tensor) -> Tensor:
    """Return ``table.address(ids)`` on the CPU.

    Shapes:
        ids: int64 ``[N]``, on the CPU. Returns int64 ``[N, P]``.
    """
    own = next(chain(table.buffers(), table.parameters()), ids)
    return table.address(ids.to(own.device)).cpu()
