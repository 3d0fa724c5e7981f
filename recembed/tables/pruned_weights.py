"""Tables most of whose weights are zero, served in the smallest of five forms, all of plain torch ops.

With ``k`` weights that are not zero in ``n`` rows of ``D``, bytes are (``starts`` being ``2 (n + 1)`` and 4 per block
of rows):

* bitmap: ``starts + n * ceil(D / 8) + 4 k``: a bit per weight, values in order;
* columns: ``starts + 5 k``: a one-byte column beside each value;
* places: ``8 k``: ``id * D + column`` beside each value, in rising order, found by binary search;
* rows: whole rows that are not zero, by remap or search (``kept_rows``); or the dense table, ``4 n D``.

Where ``served_dtype`` is float16 or int8, single values take 2 bytes (float16) and whole rows are as they would be served
from a store. Ten per cent of the bytes at ``D = 16`` hold 5.5 % of the weights.
Axes: ``*S`` any shape of ids, ``W`` weights of the fullest row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recembed.rows import ServedDtype
from recembed.tables.base import Table
from recembed.tables.held_rows import held_bytes
from recembed.tables.kept_rows import kept_rows_bytes, serve_kept_rows

__all__ = ["BitmapWeights", "ColumnWeights", "PlacedWeights", "pruned_bytes", "serve_pruned", "weights_within"]

_INT16 = 2**15 - 1
_INT32 = 2**31 - 1


class _PrunedTable(Table):
    def __init__(self, weights: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__([], weights.shape[1])
        values = weights[weights != 0]
        self.register_buffer("values", values if dtype == "float32" else values.half())

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def _spread(self, place: Tensor, column: Tensor, valid: Tensor, ids: Tensor) -> Tensor:
        """Put the values at ``place`` into their columns, all ``[*S, W]``; those that are not valid count nothing."""
        values = torch.where(valid, self.get_buffer("values")[place].float(), 0.0)
        vectors = values.new_zeros(*ids.shape, self.embedding_dim)
        return vectors.scatter_add(-1, torch.where(valid, column, 0), values)  # [*S, D]


class _RowStarts(nn.Module):
    """Where each row's values start: two bytes a row within its block, and where each block starts."""

    def __init__(self, counts: Tensor, embedding_dim: int) -> None:
        super().__init__()
        self.shift = _block_shift(embedding_dim)
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # [n + 1]
        blocks = ends[:: 1 << self.shift]
        own = torch.arange(len(ends), device=ends.device) >> self.shift
        self.register_buffer("blocks", blocks.to(_index_type(int(ends[-1]))))
        self.register_buffer("within", (ends - blocks[own]).to(torch.int16))

    def forward(self, ids: Tensor) -> Tensor:
        return self.get_buffer("blocks")[ids >> self.shift].long() + self.get_buffer("within")[ids]


def _block_shift(embedding_dim: int) -> int:
    return max((_INT16 // embedding_dim).bit_length() - 1, 0)


def _index_type(largest: int) -> torch.dtype:
    return torch.int32 if largest <= _INT32 else torch.int64


class BitmapWeights(_PrunedTable):
    """A bit per weight says whether it is there; best where more than an eighth of the weights are.

    >>> table = BitmapWeights(torch.tensor([[0.0, 7.0, 0.0], [1.0, 0.0, 2.0]]))
    >>> table.decode([], torch.tensor([1, 0])).tolist(), table.overhead_bytes
    ([[1.0, 0.0, 2.0], [0.0, 7.0, 0.0]], 24)
    """

    def __init__(self, weights: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__(weights, dtype)
        there = nn.functional.pad(weights != 0, (0, -weights.shape[1] % 8)).view(len(weights), -1, 8)  # [n, bytes, 8]
        self.register_buffer("bits", (there << torch.arange(8, device=there.device)).sum(2).to(torch.uint8))
        self.starts = _RowStarts((weights != 0).sum(1), weights.shape[1])

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        bits = self.get_buffer("bits")[ids].int().unsqueeze(-1) >> torch.arange(8, device=ids.device)
        there = (bits & 1).flatten(-2)[..., : self.embedding_dim]  # [*S, D]
        place = self.starts(ids).unsqueeze(-1) + there.cumsum(-1) - 1
        values = self.get_buffer("values")
        return torch.where(there == 1, values[place.clamp(0, len(values) - 1)].float(), 0.0)


class ColumnWeights(_PrunedTable):
    """Values beside their columns, row after row; best where a row has a few of many weights.

    >>> table = ColumnWeights(torch.tensor([[0.0, 7.0, 0.0], [1.0, 0.0, 2.0]]))
    >>> table.decode([], torch.tensor([1, 0])).tolist(), table.overhead_bytes
    ([[1.0, 0.0, 2.0], [0.0, 7.0, 0.0]], 25)
    """

    def __init__(self, weights: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__(weights, dtype)
        counts = (weights != 0).sum(1)
        self.fullest = int(counts.max())
        narrow = torch.uint8 if weights.shape[1] <= 256 else torch.int16
        self.register_buffer("columns", (weights != 0).nonzero()[:, 1].to(narrow))
        self.starts = _RowStarts(counts, weights.shape[1])

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        columns = self.get_buffer("columns")
        place = self.starts(ids).unsqueeze(-1) + torch.arange(self.fullest, device=ids.device)  # [*S, W]
        valid = place < self.starts(ids + 1).unsqueeze(-1)
        place = place.clamp(max=len(columns) - 1)
        return self._spread(place, columns[place].long(), valid, ids)


class PlacedWeights(_PrunedTable):
    """Values beside their places in the flat table; best where most rows have no weight at all.

    >>> table = PlacedWeights(torch.tensor([[0.0, 7.0, 0.0], [1.0, 0.0, 2.0]]))
    >>> table.decode([], torch.tensor([1, 0])).tolist(), table.overhead_bytes
    ([[1.0, 0.0, 2.0], [0.0, 7.0, 0.0]], 24)
    """

    def __init__(self, weights: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__(weights, dtype)
        places = (weights != 0).flatten().nonzero().flatten()
        self.fullest = int((weights != 0).sum(1).max())
        self.register_buffer("places", places.to(_index_type(weights.numel())))
        if len(places) == 0:
            self.register_buffer("places", places.new_zeros(1, dtype=_index_type(weights.numel())))
            self.register_buffer("values", self.get_buffer("values").new_zeros(1))

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        places = self.get_buffer("places")
        first = (ids * self.embedding_dim).to(places.dtype).contiguous()  # [*S]
        place = torch.searchsorted(places, first).unsqueeze(-1) + torch.arange(self.fullest, device=ids.device)
        last = len(places) - 1
        column = places[place.clamp(max=last)].long() - first.unsqueeze(-1)  # [*S, W]
        valid = (place <= last) & (column < self.embedding_dim)
        return self._spread(place.clamp(max=last), column, valid, ids)


def _forms(ids: int, embedding_dim: int, dtype: ServedDtype) -> dict[type[_PrunedTable], tuple[int, int]]:
    """Return, by form, its fixed bytes and its bytes per weight."""
    value = 4 if dtype == "float32" else 2
    starts = 2 * (ids + 1) + 4 * ((ids >> _block_shift(embedding_dim)) + 1)
    return {
        BitmapWeights: (starts + ids * -(-embedding_dim // 8), value),
        ColumnWeights: (starts, value + (1 if embedding_dim <= 256 else 2)),
        PlacedWeights: (0, value + (4 if ids * embedding_dim <= _INT32 else 8)),
    }


def pruned_bytes(weights: int, ids: int, embedding_dim: int, dtype: ServedDtype = "float32") -> int:
    """Return the fewest bytes that serve any ``weights`` of the ``ids * embedding_dim`` of a table.

    >>> pruned_bytes(100, 1000, 16), pruned_bytes(1000, 1000, 16), pruned_bytes(16000, 1000, 16)
    (800, 7006, 64000)
    """
    sizes = [fixed + each * max(weights, 1) for fixed, each in _forms(ids, embedding_dim, dtype).values()]
    return min(held_bytes(ids, embedding_dim, dtype), *sizes)


def weights_within(budget: int, ids: int, embedding_dim: int, dtype: ServedDtype = "float32") -> int:
    """Return how many weights, wherever they are, can be served in ``budget`` bytes.

    >>> weights_within(6400, 1000, 16), weights_within(7, 1000, 16), weights_within(64000, 1000, 16)
    (878, 0, 16000)
    """
    if budget >= held_bytes(ids, embedding_dim, dtype):
        return ids * embedding_dim
    return max(0, *((budget - fixed) // each for fixed, each in _forms(ids, embedding_dim, dtype).values()))


def serve_pruned(weights: Tensor, dtype: ServedDtype = "float32") -> Table:
    """Return the table that serves ``weights``, float32 ``[n, D]`` with many zeros, in the fewest bytes."""
    ids, embedding_dim = weights.shape
    count = max(int((weights != 0).sum()), 1)
    sizes = {form: fixed + each * count for form, (fixed, each) in _forms(ids, embedding_dim, dtype).items()}
    form = min(sizes, key=lambda candidate: sizes[candidate])
    kept = (weights != 0).any(1)
    if kept_rows_bytes(int(kept.sum()), ids, embedding_dim, dtype) <= sizes[form]:
        return serve_kept_rows(weights, kept, embedding_dim, dtype)
    return form(weights, dtype)
