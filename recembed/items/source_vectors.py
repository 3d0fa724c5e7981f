"""``SourceVectors``: what one source says of the items of a graph, by item number, with a stand-in where it says nothing.

Axes: ``I`` items, ``C`` width of the source, ``n`` items asked for.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from recembed.errors import ConfigError, DataError
from recembed.items.frozen import FrozenMatrix
from recembed.items.layout import ItemVectors

__all__ = ["SourceVectors", "sources_of"]

_CHUNK = 1 << 15


class SourceVectors(nn.Module):
    """Frozen vectors of a source, at mean 0 and root mean square 1; an item without one reads a learned stand-in.

    The stand-in starts at 0, the mean of the source, and there is none where every item has a vector.

    Args:
        name: Of the source, for errors.
        vectors: By item number.
        num_items: Items of the graph.

    Raises:
        DataError: vectors of another number than the items, a vector with NaN or infinity, or no vector at all.

    >>> found = ItemVectors(np.array([[1.0], [3.0], [9.0]], np.float32), np.array([True, True, False]), "a")
    >>> SourceVectors("text", found, 3)(torch.tensor([2, 1])).flatten().tolist()
    [0.0, 1.0]
    """

    def __init__(self, name: str, vectors: ItemVectors, num_items: int) -> None:
        super().__init__()
        _check(name, vectors, num_items)
        self.frozen = FrozenMatrix(vectors.matrix, vectors.present, vectors.space)
        self.width = self.frozen.width
        self.missing = int((~vectors.present).sum())
        self.stand_in = nn.Parameter(torch.zeros(self.width)) if self.missing else None
        self.num_items = num_items

    @property
    def present(self) -> Tensor:
        """Which items have a vector, bool ``[I]``."""
        return self.frozen.get_buffer("present")

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return float32 ``[n, C]`` of the items asked for; None asks for all."""
        if items is None:
            items = torch.arange(self.num_items, device=self.present.device)
        vectors: Tensor = self.frozen(items)  # [n, C]
        if self.stand_in is None:
            return vectors
        return torch.where(self.present[items].unsqueeze(1), vectors, self.stand_in)


def sources_of(content: Mapping[str, ItemVectors], num_items: int) -> nn.ModuleDict:
    """Return the sources by name.

    Raises:
        ConfigError: there is none. DataError: vectors cannot be used.
    """
    if not content:
        raise ConfigError("no content: give the vectors of at least one source, such as items.vectors.visual")
    return nn.ModuleDict({name: SourceVectors(name, found, num_items) for name, found in content.items()})


def _check(name: str, vectors: ItemVectors, num_items: int) -> None:
    matrix, present = vectors.matrix, vectors.present
    if matrix.ndim != 2 or len(matrix) != num_items or present.shape != (num_items,):
        raise DataError(
            f"{name}: vectors of shape {list(matrix.shape)}, {len(present):,} of them marked present or not: expected one "
            f"row for each of the {num_items:,} items of the graph"
        )
    if not present.any():
        raise DataError(
            f"{name}: not one of the {num_items:,} items has a vector; are the ids those of the interactions?"
        )
    for start in range(0, num_items, _CHUNK):
        part = slice(start, start + _CHUNK)
        bad = np.flatnonzero(present[part] & ~np.isfinite(matrix[part]).all(axis=1))
        if bad.size:
            raise DataError(
                f"{name}: the vector of item {start + int(bad[0])} holds NaN or infinity; mark it as not present"
            )
