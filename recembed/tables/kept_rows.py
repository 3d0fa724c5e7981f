"""Rows of a table of which only some are served; the others are zero: the smallest of three forms.

Axes: ``*S`` any shape of ids, ``n`` ids, ``k`` kept rows, ``w`` width served, ``D`` width of the vectors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.rows import ServedDtype
from recembed.tables.base import Table
from recembed.tables.held_rows import HeldRows, held_bytes
from recembed.tables.served import ServedTable

__all__ = ["SearchedRows", "kept_rows_bytes", "rows_within", "serve_kept_rows"]


def kept_rows_bytes(kept: int, ids: int, width: int, dtype: ServedDtype = "float32") -> int:
    """Return the fewest bytes that serve ``kept`` of ``ids`` rows: all rows, kept rows and a remap, or a search.

    >>> kept_rows_bytes(10, 1000, 8), kept_rows_bytes(900, 1000, 8), kept_rows_bytes(1000, 1000, 8)
    (392, 30832, 32000)
    """
    return min(
        held_bytes(ids, width, dtype), _remapped_bytes(kept, ids, width, dtype), _searched_bytes(kept, width, dtype)
    )


def _remapped_bytes(kept: int, ids: int, width: int, dtype: ServedDtype) -> int:
    return held_bytes(kept + 1, width, dtype) + (2 if kept + 1 <= 2**15 else 4) * ids


def _searched_bytes(kept: int, width: int, dtype: ServedDtype) -> int:
    return held_bytes(kept + 1, width, dtype) + 4 * max(kept, 1)


def rows_within(budget: int, ids: int, width: int, dtype: ServedDtype = "float32") -> int:
    """Return how many of ``ids`` rows can be served in ``budget`` bytes; -1 where not even none of them can.

    >>> rows_within(392, 1000, 8), rows_within(32000, 1000, 8), rows_within(10, 1000, 8)
    (10, 1000, -1)
    """
    low, high = -1, ids  # bytes never fall as rows are added
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if kept_rows_bytes(middle, ids, width, dtype) <= budget else (low, middle - 1)
    return low


def serve_kept_rows(rows: Tensor, kept: Tensor, embedding_dim: int, dtype: ServedDtype = "float32") -> Table:
    """Return a table that serves the kept rows and zeros for the others.

    Shapes:
        rows: float32 ``[n, w]``, ``w <= embedding_dim``; kept: bool ``[n]``.
    """
    ids, width = rows.shape
    count = int(kept.sum())
    rows = torch.where(kept.unsqueeze(1), rows, 0.0)
    remapped, searched = _remapped_bytes(count, ids, width, dtype), _searched_bytes(count, width, dtype)
    if held_bytes(ids, width, dtype) <= min(remapped, searched):
        return ServedTable(rows, embedding_dim, dtype=dtype)
    with_zero = torch.cat([rows.new_zeros(1, width), rows[kept]])
    if remapped <= searched:
        return ServedTable(with_zero, embedding_dim, torch.where(kept, kept.cumsum(0), 0), dtype)
    return SearchedRows(with_zero, kept.nonzero().flatten(), embedding_dim, dtype)


class SearchedRows(Table):
    """Vectors of the kept ids, found among them by binary search; zeros for the others.

    Args:
        rows: float32 ``[k + 1, w]``, the first of them zeros.
        kept: int64 ``[k]``, the kept ids in rising order; held as int32.
        embedding_dim: Width of the vectors.
        dtype: Type of the rows.

    Shapes:
        ids: int64 ``[*S]``; vectors: float32 ``[*S, D]``.

    >>> table = SearchedRows(torch.tensor([[0.0], [5.0]]), torch.tensor([7]), 2)
    >>> table.decode([], torch.tensor([7, 9])).tolist(), table.overhead_bytes
    ([[5.0, 0.0], [0.0, 0.0]], 12)
    """

    def __init__(self, rows: Tensor, kept: Tensor, embedding_dim: int, dtype: ServedDtype = "float32") -> None:
        super().__init__([], embedding_dim)
        if len(kept) == 0:
            kept = kept.new_tensor([-1])  # an id that nobody asks for
        self.rows = HeldRows(rows, dtype)
        self.register_buffer("kept", kept.to(torch.int32))

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        kept = self.get_buffer("kept")
        wanted = ids.to(torch.int32).contiguous()
        place = torch.searchsorted(kept, wanted).clamp(max=len(kept) - 1)  # [*S]
        vectors = self.rows(torch.where(kept[place] == wanted, place + 1, 0))  # [*S, w]
        return F.pad(vectors, (0, self.embedding_dim - vectors.shape[-1]))
