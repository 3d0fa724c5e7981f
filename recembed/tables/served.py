"""``ServedTable``: rows that are served from the table itself, the form that ``compact()`` of several methods returns."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.rows import ServedDtype
from recembed.tables.base import Table
from recembed.tables.held_rows import HeldRows

__all__ = ["ServedTable"]


class ServedTable(Table):
    """Vectors ``rows[remap[id]]``, filled with zeros up to ``embedding_dim``; it cannot be trained.

    Args:
        rows: float32 ``[R, w]`` with ``w <= embedding_dim``.
        embedding_dim: Width of the vectors.
        remap: Row of each id, ``[num_embeddings]``, held in the narrowest of int16 and int32; None reads row ``id``.
        dtype: Type of the rows.

    Shapes:
        ids: int64 ``[*S]``; vectors: float32 ``[*S, D]``.

    >>> table = ServedTable(torch.tensor([[0.0], [5.0]]), 2, remap=torch.tensor([1, 0, 0]))
    >>> table.decode([], torch.tensor([0, 2])).tolist(), table.overhead_bytes
    ([[5.0, 0.0], [0.0, 0.0]], 14)
    """

    reads: Literal["ids", "keys"] = "ids"

    def __init__(
        self, rows: Tensor, embedding_dim: int, remap: Tensor | None = None, dtype: ServedDtype = "float32"
    ) -> None:
        super().__init__([], embedding_dim)
        self.rows = HeldRows(rows, dtype)
        if remap is not None:
            remap = remap.to(torch.int16 if len(rows) <= 2**15 else torch.int32)
        self.register_buffer("remap", remap)

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        places = ids if self._buffers["remap"] is None else self.get_buffer("remap")[ids].long()
        vectors = self.rows(places)  # [*S, w]
        return F.pad(vectors, (0, self.embedding_dim - vectors.shape[-1]))
