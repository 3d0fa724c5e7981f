"""``dedup``: train exact rows, merge the blocks of rows that came out alike, fine-tune the shared blocks.

The deduplication of Zhou et al., Serving Deep Learning Models with Deduplication from Relational Databases, VLDB 2022,
as in the study of Zhang et al., Experimental Analysis of Large-scale Learnable Vector Storage Compression, VLDB 2024.
Differs from the study: the tolerance is relative to the size of the trained numbers; blocks are small, since features
of thousands of ids have no duplicates among blocks of 10,000 rows; where too few blocks are alike for the budget, the
blocks of the rarest ids join their nearest ones; a shared block is the mean of its members, weighted by counts.
Axes: ``K`` blocks, ``b`` rows of a block, ``D`` width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from recembed.errors import ConfigError
from recembed.hashing import salt
from recembed.rows import RowStore, RowTable, ServedDtype
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.hashed_weights import hashed_weights
from recembed.tables.held_rows import HeldRows, held_bytes
from recembed.tables.similar_blocks import merge_nearest, merge_similar
from recembed.tables.spec import TableSpec

__all__ = ["DedupConfig", "DedupTable", "ServedBlocksTable"]

_MAP_SHARE = 0.2  # of the budget, for the map of automatic blocks


class DedupConfig(TableConfig):
    """Exact rows in training; served: at most so many different blocks, and the block of each block of ids.

    Bytes served ``4 * unique * b * D + K * (2 or 4)``; training holds all rows. First-order weights are a hashed table.

    Attributes:
        ratio: Served bytes as a share of the exact table's.
        block_rows: Rows of a block; if None, the smallest power of two whose map takes a fifth of the budget.
        bands: How often alike blocks are looked for, each time by other hashes (study: 90).
        hashes: Hashes that two blocks must share in a band (study: 1, which tells its long blocks apart).
        similarity: Share of the numbers of two blocks that must agree (study: 0.7).
        tolerance: How far two numbers may differ, as a share of the root mean square of all trained numbers.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: a feature has no vocabulary.

    >>> table = DedupConfig(ratio=0.25).build([TableSpec("item", 5000, 16)], seed=0)["item"]
    >>> table.blocks, (sum(table.served_rows.values()) + table.served_overhead_bytes) / (4 * 5000 * 16)
    (Blocks(rows=1, count=5000, unique=1093, row_bytes=64), 0.24985)
    """

    kind: Literal["dedup"] = "dedup"
    recipe: ClassVar[tuple[dict[str, Any], ...]] = (
        {"name": "train", "do": "train"},
        {"name": "merge", "do": "settle"},
        {"name": "fine_tune", "do": "train", "start": "keep"},
    )
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.25
    block_rows: Annotated[int, Field(ge=1)] | None = None
    bands: Annotated[int, Field(ge=1, le=1024)] = 90
    hashes: Annotated[int, Field(ge=1, le=64)] = 4
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.7
    tolerance: Annotated[float, Field(ge=0)] = 0.1
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        ids = spec.known_ids("dedup")
        if ids <= self.exact_below:
            return FullTable.of(spec)
        if spec.linear:
            return hashed_weights(spec, int(self.ratio * ids), seed)
        blocks = self._blocks(spec)
        if blocks.bytes + blocks.map_bytes >= ids * blocks.row_bytes:
            return FullTable.of(spec)
        return DedupTable(spec, blocks, self, seed)

    def _blocks(self, spec: TableSpec) -> "Blocks":
        ids, row = spec.known_ids("dedup"), held_bytes(1, spec.embedding_dim, spec.served_dtype)
        budget = self.ratio * ids * 4 * spec.embedding_dim
        rows = self.block_rows or 1
        while self.block_rows is None and 2 * math.ceil(ids / rows) > max(_MAP_SHARE * budget, rows * row):
            rows *= 2  # until one block outweighs the map: no form is much smaller
        count = math.ceil(ids / rows)
        unique = int((budget - 2 * count) / (rows * row))
        if unique > 2**15:
            unique = max(2**15, int((budget - 4 * count) / (rows * row)))
        return Blocks(rows, count, min(max(1, unique), count), row)


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the rows of a feature are cut.

    Attributes:
        rows: Rows of a block.
        count: Blocks.
        unique: Blocks that may be served.
        row_bytes: Bytes of a row as served.
    """

    rows: int
    count: int
    unique: int
    row_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes of the unique blocks as served."""
        return self.unique * self.rows * self.row_bytes

    @property
    def map_bytes(self) -> int:
        """Bytes of the map as served."""
        return self.count * (2 if self.unique <= 2**15 else 4)


class DedupTable(Table):
    """Address: the id's row in the block that stands for the id's block.

    Args:
        spec: The feature.
        blocks: How its rows are cut.
        config: What alike means.
        seed: The hashes depend on it.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    concat = True
    additive = True

    def __init__(self, spec: TableSpec, blocks: Blocks, config: DedupConfig, seed: int) -> None:
        rows = RowTable(spec.table_name(), blocks.count * blocks.rows, spec.embedding_dim, spec.init)
        super().__init__([rows], spec.embedding_dim)
        self.blocks = blocks
        self.config = config
        self.served_dtype = spec.served_dtype
        self._seed = salt(spec.name, "dedup", seed)
        weights = np.ones(rows.num_embeddings, dtype=np.int64)
        if spec.counts is not None:
            weights[: len(spec.counts)] += spec.counts
        self._weights = weights  # known from the vocabulary: no part of the checkpoint
        self.register_buffer("block_map", torch.arange(blocks.count, dtype=torch.int32))
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))

    def address(self, ids: Tensor) -> Tensor:
        """Return the one row of each id."""
        return _rows_of_blocks(ids, self.get_buffer("block_map"), self.blocks.rows).unsqueeze(-1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the one row of each id."""
        return rows[0]

    @torch.no_grad()
    def settle(self, store: RowStore) -> dict[str, float]:
        """Merge blocks until they fit the budget and write the shared ones; later training moves these."""
        rows, config, block_map = store.read_rows(self.slots[0].name), self.config, self.get_buffer("block_map")
        blocks = rows.view(self.blocks.count, -1)[block_map.long()]  # [K, b * D]
        weights = torch.as_tensor(self._weights, device=rows.device).view(self.blocks.count, -1)  # [K, b]
        alike = merge_similar(
            blocks,
            tolerance=config.tolerance * float(blocks.square().mean().sqrt()),
            similarity=config.similarity,
            bands=config.bands,
            hashes=config.hashes,
            seed=self._seed,
        )
        leader = merge_nearest(blocks, alike, weights.sum(1), self.blocks.unique)
        share = weights.float().repeat_interleave(self.embedding_dim, dim=1)  # [K, b * D]
        total = torch.zeros_like(blocks).index_add_(0, leader, blocks * share)
        total /= torch.zeros_like(blocks).index_add_(0, leader, share).clamp(min=1)
        unique = torch.unique(leader)
        rows.view(self.blocks.count, -1)[unique] = total[unique]
        store.write_rows(self.slots[0].name, rows)
        block_map.copy_(leader)
        self.get_buffer("settled").fill_(True)
        return {"blocks": self.blocks.count, "unlike_blocks": len(torch.unique(alike)), "kept_blocks": len(unique)}

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of the unique blocks."""
        return {self.slots[0].name: self.blocks.bytes}

    @property
    def served_overhead_bytes(self) -> int:
        """Bytes of the map as served."""
        return self.blocks.map_bytes

    def compact(self, store: RowStore) -> Table:
        """Return the unique blocks and the map.

        Raises:
            ConfigError: no stage has merged the blocks.
        """
        if not self.get_buffer("settled"):
            raise ConfigError(
                f"table {self.slots[0].name!r}: its blocks have not been merged; run the stages train, settle, train "
                "(the recipe of 'dedup'), or call settle() first"
            )
        unique, block_map = torch.unique(self.get_buffer("block_map"), return_inverse=True)
        blocks = store.rows(self.slots[0].name).view(self.blocks.count, self.blocks.rows, -1)[unique.long()]
        block_map = block_map.to(torch.int16 if self.blocks.unique <= 2**15 else torch.int32)
        return ServedBlocksTable(blocks, block_map, self.served_dtype)


class ServedBlocksTable(Table):
    """A settled ``DedupTable`` as it is served; it cannot be trained.

    Args:
        blocks: float32 ``[unique, b, D]``.
        block_map: int16 or int32 ``[K]``.
        dtype: Type of the rows.
    """

    def __init__(self, blocks: Tensor, block_map: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__([], blocks.shape[2])
        self.block_rows = blocks.shape[1]
        self.rows = HeldRows(blocks.flatten(0, 1), dtype)
        self.register_buffer("block_map", block_map)

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        vectors: Tensor = self.rows(_rows_of_blocks(ids, self.get_buffer("block_map"), self.block_rows))
        return vectors


def _rows_of_blocks(ids: Tensor, block_map: Tensor, block_rows: int) -> Tensor:
    return block_map[ids // block_rows].long() * block_rows + ids % block_rows
