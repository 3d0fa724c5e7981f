"""What a ``FeatureEmbedding`` hands to a model.

Axes: ``B`` rows, ``F`` fields, ``D`` width of a field, ``W`` dense columns, ``L`` longest sequence of the batch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recembed.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torchrec

__all__ = ["Embedded", "KeyedTensor", "PaddedSequence"]


@dataclass(frozen=True, slots=True)
class KeyedTensor:
    """Vectors of several fields side by side (TorchRec's class of this name, without the package).

    Shapes:
        keys: ``F`` field names; widths: their ``F`` widths; values: float32 ``[B, sum(widths)]``.

    >>> fields = KeyedTensor(("a", "b"), (2, 2), torch.arange(4.0).view(1, 4))
    >>> fields["b"].tolist(), fields.stack().shape
    ([[2.0, 3.0]], torch.Size([1, 2, 2]))
    """

    keys: tuple[str, ...]
    widths: tuple[int, ...]
    values: Tensor

    def __getitem__(self, key: str) -> Tensor:
        """Return the vectors of one field, ``[B, D]``."""
        if key not in self.keys:
            raise ConfigError(f"field {key!r} is not among the embedded fields" + did_you_mean(key, self.keys))
        place = self.keys.index(key)
        start = sum(self.widths[:place])
        return self.values[:, start : start + self.widths[place]]

    def stack(self) -> Tensor:
        """Return ``[B, F, D]``, a view; every field must have one width."""
        if len(set(self.widths)) > 1:
            shown = ", ".join(f"{key} {width}" for key, width in zip(self.keys, self.widths, strict=True))
            raise ConfigError(f"fields differ in width ({shown}): set embeddings.project = true to make them equal")
        if not self.keys:
            return self.values.view(-1, 0, 1)
        return self.values.view(-1, len(self.keys), self.widths[0])  # [B, F, D]

    def to_torchrec(self) -> "torchrec.KeyedTensor":
        """Return TorchRec's own ``KeyedTensor`` over the same memory."""
        from recembed.rows.torchrec_tables import keyed_tensor

        return keyed_tensor(self.keys, self.widths, self.values)


@dataclass(frozen=True, slots=True)
class PaddedSequence:
    """A sequence feature that was not pooled.

    Shapes:
        values: float32 ``[B, L, D]``, zero where padded; mask: bool ``[B, L]``, True at real ids.
    """

    values: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Embedded:
    """One embedded batch.

    Shapes:
        fields: ``F`` fields; dense: float32 ``[B, W]``, numbers that enter a model as they are (``W`` may be 0);
        linear: float32 ``[B]``, the sum of the first-order weights, or None when the model asked for none;
        sequences: by feature name, those with ``pooling: none``.
    """

    fields: KeyedTensor
    dense: Tensor
    linear: Tensor | None
    sequences: dict[str, PaddedSequence]

    def concat(self) -> Tensor:
        """Return fields and dense numbers side by side, ``[B, sum(widths) + W]``."""
        if self.dense.shape[1] == 0:
            return self.fields.values
        return torch.cat([self.fields.values, self.dense], dim=1)
