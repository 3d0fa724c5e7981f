"""``ServedItems``: the fused vectors of items by raw key, the form in which content is served.

Axes: ``*S`` any shape, ``N`` items, ``D`` width.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from recembed.rows import ServedDtype
from recembed.schema.vocabulary import lookup_ids
from recembed.tables import Table
from recembed.tables.held_rows import HeldRows

__all__ = ["ORIGINS", "ServedItems"]

ORIGINS = ("trained", "content", "out_of_vocabulary")
"""Where a vector comes from: a trained row (and content), content alone, or neither."""


class ServedItems(Table):
    """Vectors by key; it cannot be trained.

    Args:
        vectors: float32 ``[first + N, D]``: of padding, missing and out-of-vocabulary ids, then of the items.
        keys: int64 ``[N]``, ascending.
        first: Number of reserved ids.
        oov_buckets: Of them, how many unknown keys are hashed to.
        origins: int64 ``[N]``, places in ``ORIGINS``.
        items: What else is known of the items, for export.
        dtype: Type in which the vectors are held.

    >>> import torch
    >>> vectors = torch.tensor([[0.0], [1], [2], [70], [90]])
    >>> table = ServedItems(vectors, torch.tensor([7, 9]), first=3, oov_buckets=1, origins=torch.tensor([0, 1]), items=None)
    >>> table.decode([], torch.tensor([9, 8, 7])).tolist(), table.provenance(torch.tensor([9, 8, 7]))
    ([[90.0], [2.0], [70.0]], ['content', 'out_of_vocabulary', 'trained'])
    """

    reads: Literal["ids", "keys"] = "keys"

    def __init__(
        self,
        vectors: Tensor,
        keys: Tensor,
        *,
        first: int,
        oov_buckets: int,
        origins: Tensor,
        items: Any,
        dtype: ServedDtype = "float32",
    ) -> None:
        super().__init__([], vectors.shape[1])
        self.first, self.oov_buckets, self.items = first, oov_buckets, items
        self.origins = origins.cpu()
        self.rows = HeldRows(vectors, dtype)
        self.register_buffer("sorted_keys", keys.clone())
        self.register_buffer("places", (keys.new_ones(len(keys)).cumsum(0) + first - 1).int())

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def _places(self, keys: Tensor) -> Tensor:
        return lookup_ids(keys, self.get_buffer("sorted_keys"), self.get_buffer("places"), self.oov_buckets)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors of keys ``[*S]``."""
        vectors: Tensor = self.rows(self._places(ids))  # [*S, D]
        return vectors

    def provenance(self, keys: Tensor) -> list[str]:
        """Return where the vector of each key ``[N]`` comes from."""
        places = self._places(keys).cpu() - self.first
        return [ORIGINS[int(self.origins[p])] if p >= 0 else ORIGINS[2] for p in places.tolist()]
