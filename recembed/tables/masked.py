"""``MaskedTable``: exact rows of which ``settle`` keeps some weights; what the methods that prune weights share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import RowStore, RowTable, served_row_bytes
from recembed.tables.base import Table
from recembed.tables.full import FullTable
from recembed.tables.pruned_weights import pruned_bytes, serve_pruned, weights_within
from recembed.tables.spec import TableSpec

__all__ = ["MaskedTable", "affordable_weights", "keep_largest", "masked_weights"]


def keep_largest(scores: Tensor, count: int) -> Tensor:
    """Return a mask of ``count`` largest scores, of their shape; of equal ones the first are kept.

    >>> keep_largest(torch.tensor([[3.0, 1.0], [2.0, 2.0]]), 2).tolist()
    [[True, False], [True, False]]
    """
    count = min(max(count, 0), scores.numel())
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    last = scores.flatten().kthvalue(scores.numel() - count + 1).values
    above, equal = scores > last, (scores == last).flatten()
    first = equal & (equal.cumsum(0) <= count - above.sum())
    return above | first.view(scores.shape)


def affordable_weights(spec: TableSpec, ratio: float) -> int:
    """Return how many weights of a feature can be served in ``ratio`` of its exact table's bytes; at least one.

    >>> affordable_weights(TableSpec("item", 1000, 16), 0.1)
    878
    """
    ids, width = spec.known_ids("masked"), spec.embedding_dim
    return max(1, weights_within(int(ratio * 4 * ids * width), ids, width, spec.served_dtype))


def masked_weights(spec: TableSpec, ratio: float | None) -> Table:
    """Return first-order weights of which ``settle`` keeps the largest that ``ratio`` can serve; exact without one."""
    return FullTable.of(spec) if ratio is None else MaskedTable(spec, affordable_weights(spec, ratio))


class MaskedTable(Table):
    """One row per id under a mask of weights: all of them until ``settle``, then the largest.

    Args:
        spec: The feature.
        weights: Weights that ``settle`` keeps; None lets the scores decide, those above zero stay.
        slots: Further slots of the method.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    def __init__(self, spec: TableSpec, weights: int | None, slots: Sequence[RowTable] = ()) -> None:
        ids, width = spec.known_ids("masked"), spec.embedding_dim
        super().__init__([RowTable(spec.table_name(), ids, width, spec.init), *slots], width)
        self.name = spec.name
        self.weights = weights
        self.served_dtype = spec.served_dtype
        self.register_buffer("mask", torch.ones(ids, width, dtype=torch.bool))
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))

    def address(self, ids: Tensor) -> Tensor:
        """Return the id itself for every slot."""
        return ids.unsqueeze(-1).expand(*ids.shape, len(self.slots))

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the row of each id under the mask."""
        return torch.where(self.get_buffer("mask")[ids], rows[0], 0.0)

    def scores(self, store: RowStore) -> Tensor:
        """Return what a weight is worth, float32 ``[num_embeddings, D]``: its size."""
        return store.rows(self.slots[0].name).abs()

    @torch.no_grad()
    def settle(self, store: RowStore) -> dict[str, float]:
        """Fix the mask: the weights of the highest scores, of those that it still lets through."""
        mask = self.get_buffer("mask")
        scores = torch.where(mask, self.scores(store), -torch.inf)
        mask &= scores > 0 if self.weights is None else keep_largest(scores, self.weights)
        self.get_buffer("settled").fill_(True)
        kept = int(mask.sum())
        return {"kept_weights": float(kept), "sparsity": 1 - kept / mask.numel()}

    @torch.no_grad()
    def compact(self, store: RowStore) -> Table:
        """Return the weights under the mask in the smallest sparse or dense form.

        Raises:
            ConfigError: the mask is not settled.
        """
        if not bool(self.get_buffer("settled")):
            raise ConfigError(
                f"feature {self.name!r}: its weights are not pruned yet, so there is nothing smaller to serve; "
                "run a stage with do: settle after training"
            )
        weights = torch.where(self.get_buffer("mask"), store.rows(self.slots[0].name), 0.0)
        return serve_pruned(weights, self.served_dtype)

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes as served; the exact table's where the number of weights is not set."""
        slot = self.slots[0]
        if self.weights is None:
            return {slot.name: served_row_bytes(slot, self.served_dtype)}
        return {slot.name: pruned_bytes(self.weights, slot.num_embeddings, slot.embedding_dim, self.served_dtype)}

    @property
    def served_overhead_bytes(self) -> int:
        """Nothing: what is served beside the values is counted with them."""
        return 0
