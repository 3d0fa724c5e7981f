"""A method with something for every kind of stage: rows to drop, widths to choose, gates to search."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from recembed.rows import RowStore, RowTable
from recembed.tables import Table, TableConfig, TableSpec

RECIPE: tuple[dict[str, Any], ...] = (
    {"name": "search", "do": "train", "search": True, "training": {"epochs": 2}},
    {"name": "widths", "do": "widths", "generations": 2, "population": 3, "keep": 2},
    {"name": "Prune", "do": "settle"},
    {"name": "retrain", "do": "train", "start": "initial"},
)


class GatedTable(Table):
    """``row * gate``, cut to a width; ``settle`` keeps the half of the ids with the longest rows."""

    def __init__(self, spec: TableSpec) -> None:
        rows = RowTable(spec.table_name(), spec.known_ids("gated"), spec.embedding_dim, spec.init)
        super().__init__([rows], spec.embedding_dim)
        self.gate = nn.Parameter(torch.ones(spec.embedding_dim))
        self.register_buffer("kept", torch.ones(rows.num_embeddings, dtype=torch.bool))
        self.register_buffer("width", torch.tensor(spec.embedding_dim))

    def address(self, ids: Tensor) -> Tensor:
        return ids.unsqueeze(-1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        places = torch.arange(self.embedding_dim, device=ids.device)
        within = places < self.get_buffer("width")
        return rows[0] * self.gate * within * self.get_buffer("kept")[ids].unsqueeze(-1)

    def search_parameters(self) -> list[nn.Parameter]:
        return [self.gate]

    def width_choices(self) -> tuple[int, ...]:
        return (2, 4, 8) if self.embedding_dim > 1 else ()

    def choose_width(self, width: int) -> None:
        self.get_buffer("width").fill_(width)

    def settle(self, store: RowStore) -> dict[str, float]:
        length = store.rows(self.slots[0].name).norm(dim=1)
        self.get_buffer("kept").copy_(length >= length.median())
        kept = self.get_buffer("kept").float()
        return {"kept_rows": kept.sum().item(), "sparsity": 1 - kept.mean().item()}


class GatedConfig(TableConfig):
    """Settings of ``GatedTable``."""

    kind: Literal["gated"] = "gated"
    recipe: ClassVar[tuple[dict[str, Any], ...]] = RECIPE

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        return {spec.name: GatedTable(spec) for spec in specs}
