"""Tables that serve the first numbers of another table's vectors, zeros after them.

Axes: ``*S`` any shape of ids, ``P`` slots, ``D`` width of the vectors.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from recembed.rows import RowStore, ServedDtype
from recembed.tables.base import Table
from recembed.tables.held_rows import HeldRows

__all__ = ["CutRows", "CutVectors"]


class CutRows(Table):
    """The first numbers of the rows of another table, at its addresses; it cannot be trained.

    Args:
        whole: A table whose vectors are sums of rows.
        store: Where its rows are.
        width: Numbers kept of each.
        dtype: Type of the rows.

    Shapes:
        ids: int64 ``[*S]``; vectors: float32 ``[*S, D]``, zero from ``width`` on.
    """

    def __init__(self, whole: Table, store: RowStore, width: int, dtype: ServedDtype = "float32") -> None:
        super().__init__([], whole.embedding_dim)
        self.reads = whole.reads
        self.whole = whole
        self.names = [slot.name for slot in whole.slots]
        self.rows = nn.ModuleList(HeldRows(store.rows(name)[:, :width], dtype) for name in dict.fromkeys(self.names))
        self._places = [list(dict.fromkeys(self.names)).index(name) for name in self.names]

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        addresses = self.whole.address(ids)  # [*S, P]
        fetched = [self.rows[i](addresses[..., p]) for p, i in enumerate(self._places)]
        vectors = self.whole.decode(fetched, ids)  # [*S, width]
        return F.pad(vectors, (0, self.embedding_dim - vectors.shape[-1]))


class CutVectors(Table):
    """The first numbers of the vectors of another table, whose rows stay whole; it cannot be trained.

    Args:
        whole: The table.
        width: Numbers kept.

    Shapes:
        ids: int64 ``[*S]``; vectors: float32 ``[*S, D]``, zero from ``width`` on.
    """

    def __init__(self, whole: Table, width: int) -> None:
        super().__init__(whole.slots, whole.embedding_dim)
        self.reads = whole.reads
        self.whole = whole
        self.width = width

    def address(self, ids: Tensor) -> Tensor:
        """Return the addresses of the whole table."""
        return self.whole.address(ids)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        vectors = self.whole.decode(rows, ids)[..., : self.width]  # [*S, width]
        return F.pad(vectors, (0, self.embedding_dim - self.width))
