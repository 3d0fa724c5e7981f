"""``autosrh``: a soft selection of numbers per group of ids of like frequency; the largest that are left are served.

Kong et al., AutoSrh: An Embedding Dimensionality Search Framework for Tabular Data Prediction, IEEE TKDE. Differs from
the paper: groups are even shares of the ids in order of popularity; the gates are kept in ``0 .. 1`` by clipping and
moved by whatever optimiser the search stage has (the benchmark of Zhang et al., VLDB 2024: SGD on the normalised
gradient); ``settle`` multiplies the gates into the rows, so retraining knows rows and mask alone.
Axes: ``G`` groups, ``D`` width of the vectors.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.rows import RowStore
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.masked import MaskedTable, affordable_weights, masked_weights
from recembed.tables.popularity import PopularityRank, popularity_order
from recembed.tables.spec import TableSpec

__all__ = ["AutoSrhConfig", "AutoSrhTable"]


class AutoSrhConfig(TableConfig):
    """Gates ``alpha[group, number]`` on every row, searched on validation rows, then a mask of single weights.

    With ``ratio`` the largest ``|alpha * row|`` that the smallest sparse form holds in that share of the exact table's
    bytes stay; without it those whose gate is above zero. Training keeps all rows, a byte per weight for the mask and
    ``4 G D`` bytes of gates. First-order weights have no gates: with ``ratio`` their largest stay.

    Attributes:
        ratio: Served bytes as a share of the exact table's.
        groups: Groups of ids of like frequency.
        l1: Penalty per gate, ``l1 * alpha``.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: a feature has no vocabulary or no counts.

    >>> spec = TableSpec("item", 600, 8, counts=torch.arange(600, 0, -1).numpy())
    >>> table = AutoSrhConfig(ratio=0.25).build([spec], seed=0)["item"]
    >>> table.group(torch.tensor([0, 99, 100, 599])).tolist(), [tuple(p.shape) for p in table.search_parameters()]
    ([0, 0, 1, 5], [(6, 8)])
    """

    kind: Literal["autosrh"] = "autosrh"
    recipe: ClassVar[tuple[dict[str, Any], ...]] = (
        {"name": "warm_up", "do": "train"},
        {"name": "search", "do": "train", "search": True},
        {"name": "settle", "do": "settle"},
        {"name": "retrain", "do": "train"},
    )
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    groups: Annotated[int, Field(ge=1)] = 6
    l1: Annotated[float, Field(ge=0)] = 1e-5
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec."""
        return {spec.name: self._build_one(spec) for spec in specs}

    def _build_one(self, spec: TableSpec) -> Table:
        if spec.known_ids(self.kind) <= self.exact_below:
            return FullTable.of(spec)
        if spec.linear:
            return masked_weights(spec, self.ratio)
        rank = PopularityRank(popularity_order(spec, self.kind))
        weights = None if self.ratio is None else affordable_weights(spec, self.ratio)
        return AutoSrhTable(spec, weights, rank, groups=self.groups, l1=self.l1)


class AutoSrhTable(MaskedTable):
    """Address: the id itself. Decode: the row times the gates of the id's group, under the mask.

    Args:
        spec: The feature.
        weights: Weights that ``settle`` keeps; None keeps those whose gate is above zero.
        rank: Rank of an id by training count.
        groups: ``G``.
        l1: Penalty per gate.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    def __init__(self, spec: TableSpec, weights: int | None, rank: PopularityRank, *, groups: int, l1: float) -> None:
        super().__init__(spec, weights)
        self.rank = rank
        self.groups = groups
        self.l1 = l1
        self.gates = nn.Parameter(torch.ones(groups, spec.embedding_dim))

    def group(self, ids: Tensor) -> Tensor:
        """Return the group of each id, most popular first, int64 of the same shape."""
        rank: Tensor = self.rank(ids)
        return rank * self.groups // self.slots[0].num_embeddings

    def search_parameters(self) -> list[nn.Parameter]:
        """Return the gates."""
        return [self.gates]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the gated row of each id under the mask."""
        settled = self.get_buffer("settled")
        if self.training:
            with torch.no_grad():
                self.gates.clamp_(0, 1)  # nothing below saves them for backward, so a second lookup may clip again
        gates = torch.where(settled, 1.0, self.gates if self.training else self.gates.clamp(0, 1))  # [G, D]
        if self.training and not self._losses:  # once a step, however many features share the table
            self.add_loss(self.l1 * torch.where(settled, 0.0, gates).sum())
        return super().decode(rows, ids) * gates[self.group(ids)]

    @torch.no_grad()
    def settle(self, store: RowStore) -> dict[str, float]:
        """Multiply the gates into the rows, then fix the mask: the largest weights, or all that are not zero."""
        self.take_losses()  # they are of a step before the mask
        open_share = float((self.gates > 0).float().mean())
        if not bool(self.get_buffer("settled")):
            rows = store.read_rows(self.slots[0].name)
            rows.mul_(self.gates.clamp(0, 1)[self.group(torch.arange(len(rows), device=rows.device))])
            store.write_rows(self.slots[0].name, rows)
            self.gates.fill_(1)
        return super().settle(store) | {"open_gates": open_share}
