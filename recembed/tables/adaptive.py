"""``adaptive``: frequent ids have rows of their own, the others share rows by hash (AdaptEmbed).

The method ``AdaptEmb`` of Zhang et al., Experimental Analysis of Large-scale Learnable Vector Storage Compression,
VLDB 2024. Differs from the benchmark: both parts are one row table, so an id costs one lookup; rare ids share by a
seeded mix, not ``id % rows``; in a fresh vocabulary the frequent ids are the first ones and no remap is stored.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.hashing import hash_rows, salt
from recembed.rows import RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.popularity import PopularityRank, popularity_order
from recembed.tables.spec import TableSpec

__all__ = ["AdaptiveConfig", "AdaptiveTable"]


class AdaptiveConfig(TableConfig):
    """So many rows per feature, a share of them exclusive; bytes ``4 * rows * embedding_dim``, one lookup per id.

    Reserved ids (missing, out of vocabulary) are among the exclusive ones. A vocabulary that has grown adds 4 bytes per
    id for their ranks, which ``ratio`` counts in. First-order weights are treated alike, at width 1.

    Attributes:
        num_embeddings: Rows per feature.
        ratio: Bytes as a share of the exact table's (0.25 if ``num_embeddings`` is not given).
        exact_share: Share of the rows that belong to one id each.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: a feature has no vocabulary or no counts.

    >>> spec = TableSpec("item", 6, 8, counts=torch.tensor([0, 3, 1, 9, 5, 4]).numpy(), reserved_ids=3)
    >>> table = AdaptiveConfig(num_embeddings=5, exact_share=0.8, exact_below=0).build([spec], seed=0)["item"]
    >>> table.address(torch.arange(6)).flatten().tolist()
    [0, 1, 2, 3, 4, 4]
    """

    kind: Literal["adaptive"] = "adaptive"
    sized_by: ClassVar[str] = "num_embeddings"
    num_embeddings: Annotated[int, Field(ge=2)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    exact_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        ids = spec.known_ids("adaptive")
        if ids <= self.exact_below:
            return FullTable.of(spec)
        rank = PopularityRank(popularity_order(spec, "adaptive"))
        remap = sum(buffer.numel() for buffer in rank.buffers())  # words
        rows = self.num_embeddings
        if rows is None:
            ratio = 0.25 if self.ratio is None else self.ratio
            rows = int((ratio * ids * spec.embedding_dim - remap) / spec.embedding_dim)
        rows = max(rows, 2)
        if rows * spec.embedding_dim + remap >= ids * spec.embedding_dim:
            return FullTable.of(spec)
        exact = min(rows - 1, max(int(self.exact_share * rows), spec.reserved_ids))
        return AdaptiveTable(
            RowTable(spec.table_name(), rows, spec.embedding_dim, spec.init), rank, exact, salt(spec.name, 0, seed)
        )


class AdaptiveTable(Table):
    """Address: the rank of the id if it is below ``exact``, else a hash into the rows from ``exact`` on.

    Args:
        rows: The rows, exclusive ones first.
        rank: Rank of an id by training count.
        exact: Exclusive rows.
        seeded: Salt of the hash.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    concat = True
    additive = True

    def __init__(self, rows: RowTable, rank: PopularityRank, exact: int, seeded: int) -> None:
        super().__init__([rows], rows.embedding_dim)
        self.rank = rank
        self.exact = exact
        self.shared = rows.num_embeddings - exact
        self.register_buffer("salts", torch.tensor([seeded], dtype=torch.int64))

    def address(self, ids: Tensor) -> Tensor:
        """Return the one row of each id."""
        rank = self.rank(ids).unsqueeze(-1)  # [*S, 1]
        shared = hash_rows(ids.unsqueeze(-1), self.get_buffer("salts"), self.shared) + self.exact
        return torch.where(rank < self.exact, rank, shared)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the one row of each id."""
        return rows[0]
