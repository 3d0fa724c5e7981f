"""``ProjectedRows``: narrow rows and the projection that widens them, as served."""

from collections.abc import Sequence

from torch import Tensor

from recembed.rows import ServedDtype
from recembed.tables.served import ServedTable

__all__ = ["ProjectedRows"]


class ProjectedRows(ServedTable):
    """Vectors ``rows[id] @ projection``; it cannot be trained.

    Args:
        rows: float32 ``[n, w]``.
        projection: float32 ``[w, D]``.
        dtype: Type of the rows; the projection stays as it is.

    >>> import torch
    >>> table = ProjectedRows(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]]))
    >>> table.decode([], torch.tensor([1])).tolist(), table.overhead_bytes
    ([[6.0, 8.0]], 16)
    """

    def __init__(self, rows: Tensor, projection: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__(rows, rows.shape[1], dtype=dtype)
        self.embedding_dim = projection.shape[1]
        self.register_buffer("projection", projection.detach().clone())

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        vectors: Tensor = self.rows(ids) @ self.get_buffer("projection")
        return vectors
