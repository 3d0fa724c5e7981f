"""``HeldRows``: rows that a compact table holds itself, in the type they are served in.

Axes: ``R`` rows, ``w`` width, ``*S`` any shape of places.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.rows import RowTable, ServedDtype, round_rows, served_row_bytes

__all__ = ["HeldRows", "held_bytes"]


def held_bytes(rows: int, width: int, dtype: ServedDtype = "float32") -> int:
    """Return the bytes of ``rows`` held rows: those of rows served from a store.

    >>> [held_bytes(10, 8, dtype) for dtype in ("float32", "float16", "int8")], held_bytes(10, 1, "int8")
    ([320, 160, 100], 20)
    """
    return served_row_bytes(RowTable("held", rows, width), dtype)


class HeldRows(nn.Module):
    """Rows as float32, float16, or int8 with a float16 scale per row; see ``ServedStore`` for the rounding.

    Args:
        rows: float32 ``[R, w]``.
        dtype: What to hold them in; int8 rows under 4 wide become float16.

    >>> rows = HeldRows(torch.tensor([[1.27, -0.64, 0.0, 0.005]]), "int8")
    >>> rows.get_buffer("codes").tolist(), rows(torch.tensor([0])).shape
    ([[127, -64, 0, 0]], torch.Size([1, 4]))
    """

    def __init__(self, rows: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__()
        rows, scale = rows.detach(), None
        if dtype == "int8" and held_bytes(1, rows.shape[1], "int8") < held_bytes(1, rows.shape[1], "float16"):
            rows, scale = round_rows(rows)
        elif dtype != "float32":
            rows = rows.half()
        self.register_buffer("codes", rows.clone())
        self.register_buffer("scale", scale)

    def forward(self, places: Tensor) -> Tensor:
        """Return the rows at ``places`` ``[*S]``, float32 ``[*S, w]``."""
        codes = self.get_buffer("codes")
        if codes.dtype == torch.float32:
            return F.embedding(places, codes)
        rows = codes[places].float()
        return rows if self._buffers["scale"] is None else rows * self.get_buffer("scale")[places].float()

    def numbers(self) -> Tensor:
        """Return all rows, float32 ``[R, w]``."""
        codes = self.get_buffer("codes")
        rows: Tensor = self(torch.arange(len(codes), device=codes.device))
        return rows
