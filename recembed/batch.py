"""``Batch``: the only object that passes from data to models.

Axes: ``B`` rows, ``C`` categorical features, ``W`` numeric columns, ``L`` labels, ``N`` ids of a jagged feature.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Batch", "Jagged"]


@dataclass(frozen=True, slots=True)
class Jagged:
    """The ids of one bag or sequence feature: row ``b`` owns ``values[offsets[b]:offsets[b + 1]]``.

    Shapes:
        values: int64 ``[N]``; offsets: int64 ``[B + 1]``; weights: float32 ``[N]`` or None.
    """

    values: Tensor
    offsets: Tensor
    weights: Tensor | None = None

    def to(self, device: torch.device | str) -> "Jagged":
        """Return a copy on ``device``."""
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return Jagged(self.values.to(device, non_blocking=True), self.offsets.to(device, non_blocking=True), weights)


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of encoded rows.

    The columns of ``ids`` and ``numeric`` and the keys of ``jagged`` follow the schema's order. An entry of
    ``ids`` or of a jagged feature is the vocabulary id of the value, or its raw 64-bit key where the
    feature's table reads keys (hash methods).

    Shapes:
        ids: int64 ``[B, C]``; jagged: feature name to ``Jagged``; numeric: float32 ``[B, W]``, NaN where missing;
        labels: float32 ``[B, L]``; rows: int64 ``[B]``, the position of each row in its data set, or None.
    """

    ids: Tensor
    jagged: dict[str, Jagged]
    numeric: Tensor
    labels: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        """Return ``B``."""
        return self.ids.shape[0]

    def to(self, device: torch.device | str) -> "Batch":
        """Return a copy on ``device``."""
        return replace(
            self,
            ids=self.ids.to(device, non_blocking=True),
            jagged={name: jagged.to(device) for name, jagged in self.jagged.items()},
            numeric=self.numeric.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            rows=None if self.rows is None else self.rows.to(device, non_blocking=True),
        )
