"""``TableVectors``: the vectors of every id of several tables, as one matrix to propagate over a graph.

Axes: ``N`` ids of all tables, ``D`` width, ``d`` width of a slot.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.rows import PlainStore
from recembed.tables.base import Table

__all__ = ["TableVectors"]


class TableVectors(nn.Module):
    """Tables of any method, one below the other, their rows held here as parameters of the dense optimiser.

    Where several processes propagate slices of the graph, each still holds all rows: methods share them between nodes.
    Methods that would hash a raw key hash the id here, which is known for every node.

    Args:
        tables: One per feature; those of a method that shares rows share them here too.
        sizes: Ids of each.
        seed: Fresh rows depend on it and on names alone.

    Shapes:
        forward: float32 ``[N, D]``.

    Raises:
        ConfigError: a method moves rows while it trains.
    """

    def __init__(self, tables: Sequence[Table], sizes: Sequence[int], seed: int) -> None:
        super().__init__()
        for table in tables:
            if table.moves_rows:
                raise ConfigError(
                    f"{type(table).__name__} moves rows while it trains, so it cannot be the base of a graph; choose "
                    "a method that does not"
                )
        self.tables, self.sizes = nn.ModuleList(tables), tuple(sizes)
        slots = list({slot.name: slot for table in tables for slot in table.slots}.values())
        store = PlainStore(slots, optimizer=None, seed=seed, device="cpu")
        self.rows = nn.ParameterList(nn.Parameter(store.rows(slot.name).detach().clone()) for slot in slots)
        self._place = {slot.name: place for place, slot in enumerate(slots)}

    def forward(self) -> Tensor:
        """Return the vectors of all ids of all tables."""
        vectors = []
        for table, size in zip(self.tables, self.sizes, strict=True):
            assert isinstance(table, Table)
            ids = torch.arange(size, device=self.device)
            addresses = table.address(ids)  # [n, P]
            fetched = [self.rows[self._place[slot.name]][addresses[:, p]] for p, slot in enumerate(table.slots)]
            vectors.append(table.decode(fetched, ids))
        return torch.cat(vectors)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return next(self.parameters()).device
