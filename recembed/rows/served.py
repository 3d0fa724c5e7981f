"""Rows as they are served: float32, float16, or int8 with a scale per row, read by plain torch operations.

Axes: ``N`` addresses, ``G`` bags, ``D`` width, ``R`` rows of a stack.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import RecembedError
from recembed.rows.base import RowStore, RowTable

__all__ = ["ServedDtype", "ServedStore", "round_rows", "served_row_bytes"]

ServedDtype = Literal["float32", "float16", "int8"]

_NARROW = 4  # a scale would outweigh what int8 saves on narrower rows
_STEPS = 127  # int8 without -128, so that a row and its negative are stored alike


def _dtype(width: int, dtype: ServedDtype) -> ServedDtype:
    return "float16" if dtype == "int8" and width < _NARROW else dtype


def served_row_bytes(table: RowTable, dtype: ServedDtype) -> int:
    """Return the bytes of a row table as served; int8 rows have a float16 scale each, rows under 4 wide are float16.

    >>> [served_row_bytes(RowTable("item", 10, 8), dtype) for dtype in ("float32", "float16", "int8")]
    [320, 160, 100]
    """
    row = {"float32": 4 * table.embedding_dim, "float16": 2 * table.embedding_dim, "int8": table.embedding_dim + 2}
    return table.num_embeddings * row[_dtype(table.embedding_dim, dtype)]


def round_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 rows ``[R, D]`` as int8 ``[R, D]`` and the float16 scale of each, ``[R, 1]``.

    >>> integers, scale = round_rows(torch.tensor([[1.27, -0.64, 0.0], [0.0, 0.0, 0.0]]))
    >>> integers.tolist(), [round(value, 4) for value in scale.flatten().tolist()]
    ([[127, -64, 0], [0, 0, 0]], [0.01, 0.0])
    """
    scale = (rows.abs().amax(1, keepdim=True) / _STEPS).half()
    divisor = torch.where(scale > 0, scale, 1).float()
    return (rows / divisor).round_().clamp_(-_STEPS, _STEPS).to(torch.int8), scale


class ServedStore(RowStore):
    """Copies of some tables of a trained store, on CPU, read-only, in the type they are served in.

    An int8 row is ``round(row / scale)`` with ``scale = max(abs(row)) / 127``: each number is off by at most half a
    ``scale`` (and the rounding of the float16 scale, under 0.1 % of the number). float16 keeps 11 bits.

    Args:
        trained: Where the rows are.
        tables: Which of its tables to serve.
        dtype: Type of the rows.

    >>> from recembed.rows.plain import PlainStore
    >>> store = PlainStore([RowTable("item", 1, 4)], optimizer=None)
    >>> _ = store.rows("item").copy_(torch.tensor([[1.27, -0.64, 0.0, 0.005]]))
    >>> served = ServedStore(store, [RowTable("item", 1, 4)], "int8")
    >>> served.get_buffer("stack_4").tolist(), served(torch.tensor([0]), 4).round(decimals=2).tolist()
    ([[127, -64, 0, 0]], [[1.2699999809265137, -0.6399999856948853, 0.0, 0.0]])
    """

    def __init__(self, trained: RowStore, tables: Sequence[RowTable], dtype: ServedDtype = "float32") -> None:
        self.dtype = dtype
        super().__init__(tables, optimizer=None, seed=trained.seed, device="meta")
        self.to_empty(device="cpu")
        for name in self.tables:
            self._copy(name, trained.rows(name))

    def _allocate(self, device: torch.device) -> None:
        for width, rows in self.stack_rows.items():
            dtype: torch.dtype = getattr(torch, _dtype(width, self.dtype))
            self.register_buffer(f"stack_{width}", torch.zeros(rows, width, dtype=dtype, device=device))
            if dtype == torch.int8:
                self.register_buffer(f"scale_{width}", torch.zeros(rows, 1, dtype=torch.float16, device=device))

    def reset_parameters(self) -> None:
        """Do nothing: the rows are copies."""

    @torch.no_grad()
    def _copy(self, name: str, rows: Tensor) -> None:
        width = self.tables[name].embedding_dim
        target = self._part(name, self.get_buffer(f"stack_{width}"))
        if target.dtype != torch.int8:
            target.copy_(rows)
            return
        integers, scale = round_rows(rows)
        self._part(name, self.get_buffer(f"scale_{width}")).copy_(scale)
        target.copy_(integers)

    def forward(self, addresses: Tensor, width: int, offsets: Tensor | None = None) -> Tensor:
        """Look up rows, or sums of bags; see ``RowStore.forward``."""
        stack = self.get_buffer(f"stack_{width}")
        if stack.dtype == torch.float32 and offsets is not None:
            return F.embedding_bag(addresses, stack, offsets, mode="sum", include_last_offset=True)  # [G, D]
        rows = stack[addresses].float()  # [N, D]
        if stack.dtype == torch.int8:
            rows = rows * self.get_buffer(f"scale_{width}")[addresses].float()
        if offsets is None:
            return rows
        places = torch.arange(len(addresses), device=addresses.device)
        return F.embedding_bag(places, rows, offsets, mode="sum", include_last_offset=True)  # [G, D]

    def stack(self, width: int) -> Tensor:
        """Return the rows of one width as numbers, float32 ``[R, D]``: a copy unless they are served as float32."""
        stack = self.get_buffer(f"stack_{width}")
        if stack.dtype == torch.int8:
            return stack.float() * self.get_buffer(f"scale_{width}").float()
        return stack.float()

    def held(self, name: str) -> Tensor:
        """Return the rows of one table as numbers, float32 ``[num_embeddings, embedding_dim]``."""
        width = self.tables[name].embedding_dim
        rows = self._part(name, self.get_buffer(f"stack_{width}")).float()
        if _dtype(width, self.dtype) == "int8":
            rows = rows * self._part(name, self.get_buffer(f"scale_{width}")).float()
        return rows

    def stack_states(self, width: int) -> dict[str, Tensor]:
        """Return nothing: there is no row rule."""
        return {}

    def set_learning_rate(self, learning_rate: float) -> None:
        """Refuse: served rows are not trained."""
        raise RecembedError("served rows cannot be trained: build the model from its config and checkpoint")

    @property
    def bytes(self) -> int:
        """Bytes of all rows as they are served."""
        return sum(served_row_bytes(table, self.dtype) for table in self.tables.values())
