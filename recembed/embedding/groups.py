"""Features on their way through the lookup: all single-id columns by method, and each jagged feature by itself.

Axes: ``B`` rows, ``C`` columns of the batch, ``n`` columns of a group, ``N`` ids of a jagged feature, ``D`` width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recembed.batch import Jagged
from recembed.embedded import PaddedSequence
from recembed.embedding.config import PoolingOption
from recembed.embedding.lookup import Lookups, Request
from recembed.pooling import pad, pool
from recembed.rows import RowStore
from recembed.schema.feature import Feature
from recembed.tables import SideBySide, Table, Together

__all__ = ["ColumnGroup", "JaggedFeature", "group_columns", "in_schema_order"]


class ColumnGroup(nn.Module):
    """Single-id features that are looked up and decoded together.

    Args:
        features: All single-id features of the schema.
        columns: The places of this group's features in ``Batch.ids``.
        together: Their tables.
        store: Where the rows are.
    """

    def __init__(
        self, features: Sequence[Feature], columns: Sequence[int], together: Together, store: RowStore
    ) -> None:
        super().__init__()
        self.keys = tuple(features[column].name for column in columns)
        self.together = together
        self.together.bind(store)
        self.widths = self.together.embedding_dims
        self.additive = self.together.additive
        self.places = tuple(columns)
        self._every = self.places == tuple(range(len(features)))
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)

    def take(self, ids: Tensor) -> Tensor:
        """Return this group's columns ``[B, n]`` of ``Batch.ids`` ``[B, C]``."""
        return ids if self._every else ids.index_select(1, self.get_buffer("columns"))

    def address(self, ids: Tensor) -> Tensor:
        """Return int64 ``[B, slots]`` addresses, counted from the start of each table."""
        return self.together.address(ids)

    def addresses_like(self, other: "ColumnGroup") -> bool:
        """Tell whether ``other`` has the same columns and finds the same addresses for them."""
        return self.places == other.places and self.together.addresses_like(other.together)

    def request(self, lookups: Lookups, addresses: Tensor) -> dict[int, Request]:
        """Ask for the rows at ``addresses`` ``[B, slots]``, by width."""
        return {w: lookups.rows(rows.flatten(), w) for w, rows in self.together.lookups(addresses).items()}

    def decode(self, requests: dict[int, Request], ids: Tensor) -> Tensor:
        """Return the vectors side by side, ``[B, sum(widths)]``."""
        return self.together.decode(_by_slot(requests, self.together), ids)

    def request_sums(self, lookups: Lookups, addresses: Tensor) -> Request:
        """Ask for the sum of the rows at ``addresses`` ``[B, slots]``: first-order weights, added in the kernel."""
        ((width, rows),) = self.together.lookups(addresses).items()
        batch, slots = rows.shape
        offsets = torch.arange(batch + 1, device=rows.device) * slots
        return lookups.sums(rows.flatten(), offsets, width)


def group_columns(features: Sequence[Feature], tables: Mapping[str, Table], store: RowStore) -> list[ColumnGroup]:
    """Group single-id features by the class of their table, keeping the schema's order within a group.

    Classes whose decode is free and whose rows have one width become one group.
    """
    kinds: dict[type[Table], list[int]] = {}
    for column, feature in enumerate(features):
        kinds.setdefault(type(tables[feature.vocabulary_name]), []).append(column)
    parts = [
        (columns, kind.together([tables[features[column].vocabulary_name] for column in columns]))
        for kind, columns in kinds.items()
    ]
    groups = [part for part in parts if not part[1].concat]
    for widths in {together.widths: None for _, together in parts if together.concat}:
        same = [(columns, together) for columns, together in parts if together.concat and together.widths == widths]
        groups.append(same[0] if len(same) == 1 else _side_by_side(same))
    return [ColumnGroup(features, columns, together, store) for columns, together in groups]


def _side_by_side(parts: Sequence[tuple[list[int], Together]]) -> tuple[list[int], Together]:
    columns = sorted(column for own, _ in parts for column in own)
    places = [[columns.index(column) for column in own] for own, _ in parts]
    return columns, SideBySide([together for _, together in parts], places)


def in_schema_order(groups: Sequence[ColumnGroup], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return the vectors of all groups as pieces that, side by side, follow the order of the schema's columns.

    So the order of the fields never depends on their methods, and a compact embedding fits the model it came from.
    """
    if len(groups) < 2:
        return list(vectors)
    pieces = {
        column: piece
        for group, values in zip(groups, vectors, strict=True)
        for column, piece in zip(group.places, torch.split(values, list(group.widths), dim=1), strict=True)
    }
    return [pieces[column] for column in sorted(pieces)]


def _by_slot(requests: Mapping[int, Request], together: Together) -> dict[int, Tensor]:
    """Return the rows of each width as ``[B, slots of that width, width]``."""
    return {width: r.rows.view(-1, together.slots_of(width), width) for width, r in requests.items()}


class JaggedFeature(nn.Module):
    """One bag or sequence: its rows, decoded, then pooled or padded.

    Where decode is free the sum (or mean) of a bag is taken in the lookup itself.
    """

    def __init__(self, feature: Feature, table: Table, store: RowStore, pooling: PoolingOption) -> None:
        super().__init__()
        self.name = feature.name
        self.pooling = pooling
        self.max_length = feature.max_length
        self.together = type(table).together([table])
        self.together.bind(store)
        self.width = table.embedding_dim
        self._in_kernel = table.additive and len(self.together.widths) == 1 and pooling in ("sum", "mean")

    def request(self, lookups: Lookups, jagged: Jagged) -> dict[int, Request]:
        """Ask for the rows, by width."""
        addresses = self.together.lookups(self.together.address(jagged.values.unsqueeze(1)))  # [N, slots]
        if not self._pushed(jagged):
            return {width: lookups.rows(rows.flatten(), width) for width, rows in addresses.items()}
        ((width, rows),) = addresses.items()
        return {width: lookups.sums(rows.flatten(), jagged.offsets * rows.shape[1], width)}

    def finish(self, requests: dict[int, Request], jagged: Jagged) -> Tensor | PaddedSequence:
        """Return one vector per row, ``[B, D]``, or the padded sequence."""
        if self._pushed(jagged):
            (request,) = requests.values()
            if self.pooling == "sum":
                return request.rows
            return request.rows / jagged.offsets.diff().clamp(min=1).unsqueeze(1)
        vectors = self.together.decode(_by_slot(requests, self.together), jagged.values.unsqueeze(1))  # [N, D]
        if self.pooling == "none":
            return pad(vectors, jagged.offsets, self.max_length)
        return pool(vectors, jagged.offsets, self.pooling, jagged.weights)

    def _pushed(self, jagged: Jagged) -> bool:
        return self._in_kernel and jagged.weights is None
