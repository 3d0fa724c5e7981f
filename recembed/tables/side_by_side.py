"""``SideBySide``: features of several methods that are looked up together.

Axes: ``B`` rows of a batch, ``n`` features handled together.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from recembed.tables.base import Together
from recembed.tables.columns import take_columns

__all__ = ["SideBySide"]


class SideBySide(Together):
    """Several groups whose decode is a concatenation of rows of one width: one lookup, and no copy after it.

    Args:
        parts: The groups.
        places: For each part, where its features stand among all features of this group.
    """

    def __init__(self, parts: Sequence[Together], places: Sequence[Sequence[int]]) -> None:
        tables = {p: t for part, own in zip(parts, places, strict=True) for p, t in zip(own, part._tables, strict=True)}
        super().__init__([tables[place] for place in range(len(tables))])
        self.places = [list(own) for own in places]
        self.parts = nn.ModuleList(parts)
        starts = np.cumsum([0, *(len(tables[place].slots) for place in range(len(tables)))])
        slots = [slot for own in places for place in own for slot in range(starts[place], starts[place + 1])]
        self.register_buffer("turn", torch.tensor(np.argsort(slots)), persistent=False)
        for i, own in enumerate(places):
            self.register_buffer(f"places_{i}", torch.tensor(own, dtype=torch.int64), persistent=False)

    def address(self, ids: Tensor) -> Tensor:
        """Return the addresses of each part, brought into the order of the features."""
        addresses = [
            part.address(take_columns(ids, self.get_buffer(f"places_{i}"))) for i, part in enumerate(self._parts)
        ]
        return take_columns(torch.cat(addresses, dim=1), self.get_buffer("turn"))  # [B, slots]

    def addresses_like(self, other: Together) -> bool:
        """Tell whether each part stands at the same places and addresses like the other's."""
        if not isinstance(other, SideBySide) or self.places != other.places:
            return False
        return all(one.addresses_like(two) for one, two in zip(self._parts, other._parts, strict=True))

    @property
    def _parts(self) -> list[Together]:
        return [cast(Together, part) for part in self.parts]
