"""Fresh rows, drawn in blocks from the seed and the table's name, so that any part of a table can be drawn by itself."""

from collections.abc import Iterator

import torch
from torch import Tensor

from recembed.hashing import salt
from recembed.rows.row_table import Part, RowTable

__all__ = ["fresh_rows"]

_BLOCK = 1 << 18


def fresh_rows(table: RowTable, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the fresh rows of a table, or of the part of a larger table that it is: first row and float32 ``[n, D]``.

    A block of the whole table is the most that is held at once.

    >>> whole, part = RowTable("item", 9, 4), RowTable("", 3, 2, part=Part("item", 9, 4, first_row=5, first_column=2))
    >>> ((_, drawn),), ((start, own),) = fresh_rows(whole, seed=1), fresh_rows(part, seed=1)
    >>> start, torch.equal(own, drawn[5:8, 2:])
    (0, True)
    """
    part = table.part or Part(table.name, table.num_embeddings, table.embedding_dim)
    first, end = part.first_row, part.first_row + table.num_embeddings
    columns = slice(part.first_column, part.first_column + table.embedding_dim)
    for block in range(first // _BLOCK, -(-end // _BLOCK)):
        start = block * _BLOCK
        drawn = _block(part, table, seed, block)
        low, high = max(first - start, 0), min(end - start, len(drawn))
        yield start + low - first, drawn[low:high, columns]


def _block(part: Part, table: RowTable, seed: int, block: int) -> Tensor:
    words = ("rows", part.name, seed, block) if block else ("rows", part.name, seed)
    generator = torch.Generator().manual_seed(salt(*words) & (2**63 - 1))
    drawn = torch.empty(min(_BLOCK, part.num_embeddings - block * _BLOCK), part.embedding_dim)
    if table.init.law == "uniform":
        return drawn.uniform_(-table.init.scale, table.init.scale, generator=generator)
    return drawn.normal_(0, table.init.scale, generator=generator)
