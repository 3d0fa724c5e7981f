"""Streams: what one source says of items, as vectors of one width, and where it says nothing.

Axes: ``*S`` any shape, ``N`` items, ``K`` codes per item, ``W`` numbers per item, ``D`` width of the result.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.items.attributes import AttributeCodes
from recembed.items.frozen import FrozenMatrix
from recembed.items.layout import ItemVectors
from recembed.rows import Init, RowTable
from recembed.tables.parameters import uniform_parameter

__all__ = ["AttributeStream", "Stream", "Tuning", "VectorStream", "check_widths"]

Tuning = Literal["frozen", "projected", "fine_tuned"]


class Stream(nn.Module, ABC):
    """One source of content.

    Attributes:
        embedding_dim: Width of its vectors.
        slots: Row tables that it moves in training, fetched per item.
    """

    embedding_dim: int
    slots: tuple[RowTable, ...] = ()

    @abstractmethod
    def forward(self, items: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """Return float32 ``[*S, D]`` for items ``[*S]`` and their fetched rows; what an absent item gets means nothing."""

    @property
    @abstractmethod
    def known(self) -> Tensor:
        """Return of which items it knows anything, bool ``[N]``."""


class VectorStream(Stream):
    """Vectors of an encoder, or from elsewhere.

    ``frozen`` hands them on as they are, ``projected`` through a learned matrix, ``fine_tuned`` also learns an offset per
    item, which starts at zero: the vectors start where the encoder put them and move from there.

    Args:
        name: Of feature and source; fresh weights depend on it.
        vectors: The vectors.
        embedding_dim: Width wanted.
        tuning: What is learned.
        std: Root mean square of a projected vector's entries at first.
        seed: Fresh weights depend on it.
    """

    def __init__(
        self, name: str, vectors: ItemVectors, embedding_dim: int, *, tuning: Tuning, std: float, seed: int
    ) -> None:
        super().__init__()
        self.frozen = FrozenMatrix(vectors.matrix, vectors.present, vectors.space)
        width = self.frozen.width
        self.embedding_dim = width if tuning == "frozen" else embedding_dim
        self.weight = (
            None if tuning == "frozen" else uniform_parameter((embedding_dim, width), std * width**-0.5, name, seed)
        )
        if tuning == "fine_tuned":
            self.slots = (RowTable(f"{name}.tuned", len(vectors.matrix) + 1, width, Init(0.0, "uniform")),)

    @property
    def known(self) -> Tensor:
        """Return of which items it knows anything, bool ``[N]``."""
        return self.frozen.get_buffer("present")

    def forward(self, items: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """Return the vectors of items."""
        vectors: Tensor = self.frozen(items)  # [*S, w]
        if rows:
            vectors = vectors + rows[0]
        return vectors if self.weight is None else F.linear(vectors, self.weight)


class AttributeStream(Stream):
    """Learned vectors of attribute values, averaged over the values of a bag and added up; numbers by a learned matrix.

    Args:
        name: Of the feature; fresh weights depend on it.
        attributes: Codes and numbers.
        embedding_dim: Width wanted.
        std: Root mean square of a fresh vector's entries.
        seed: Fresh weights depend on it.
    """

    def __init__(self, name: str, attributes: AttributeCodes, embedding_dim: int, *, std: float, seed: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        numbers = attributes.numbers
        finite = np.isfinite(numbers)
        filled, count = np.where(finite, numbers, 0.0), np.maximum(finite.sum(axis=0), 1)
        mean = filled.sum(axis=0) / count
        spread = (np.where(finite, numbers - mean, 0.0) ** 2).sum(axis=0) / count
        for key, values in (("codes", attributes.codes), ("weights", attributes.weights), ("numbers", numbers)):
            self.register_buffer(key, torch.from_numpy(np.ascontiguousarray(values)), persistent=False)
        self.register_buffer("present", torch.from_numpy(attributes.present.copy()), persistent=False)
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        self.register_buffer("std", torch.from_numpy(np.sqrt(np.where(spread > 0, spread, 1.0)).astype(np.float32)))
        fields = max(attributes.codes.shape[1], 1)
        self.values = uniform_parameter((attributes.buckets, embedding_dim), std * fields**-0.25, name, "values", seed)
        width = 2 * numbers.shape[1]
        self.weight = uniform_parameter((embedding_dim, width), std * max(width, 1) ** -0.5, name, "numbers", seed)

    @property
    def known(self) -> Tensor:
        """Return of which items it knows anything, bool ``[N]``."""
        return self.get_buffer("present")

    def forward(self, items: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """Return the vectors of items."""
        codes, weights = F.embedding(items, self.get_buffer("codes")), F.embedding(items, self.get_buffer("weights"))
        vectors = (F.embedding(codes.long(), self.values) * weights.unsqueeze(-1)).sum(-2)  # [*S, D]
        numbers = F.embedding(items, self.get_buffer("numbers"))  # [*S, W]
        missing = numbers.isnan()
        scores = ((numbers - self.get_buffer("mean")) / self.get_buffer("std")).clamp(-10, 10)
        inputs = torch.cat([torch.where(missing, 0.0, scores), missing.float()], dim=-1)  # [*S, 2 W]
        return vectors + F.linear(inputs, self.weight)


def check_widths(streams: dict[str, Stream], embedding_dim: int, fuse: str) -> None:
    """Refuse frozen vectors of another width where the fusion adds streams up.

    Raises:
        ConfigError: a stream is wider or narrower than the feature.
    """
    for name, stream in streams.items():
        if stream.embedding_dim != embedding_dim:
            raise ConfigError(
                f"encoder.tune.{name} = 'frozen': its vectors are {stream.embedding_dim} wide and fuse {fuse!r} adds up "
                f"streams of embedding_dim = {embedding_dim}; set tune: projected, or fuse: concat"
            )
