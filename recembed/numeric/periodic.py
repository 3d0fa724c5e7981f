"""A field of a number by waves of learned frequencies."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.numeric.base import FieldConfig, NumericEncoder, ZScore
from recembed.schema.feature import Feature
from recembed.schema.fitted import NumericStats

__all__ = ["Periodic", "PeriodicConfig"]


class PeriodicConfig(FieldConfig):
    """A field by waves of the standardised number.

    Attributes:
        num_frequencies: Waves per number, each a sine and a cosine.
        frequency_std: Standard deviation of the fresh frequencies, in waves per standard deviation of the number; the
            setting that matters most. The paper tunes it between 0.01 and 100.
        log: Standardise the signed logarithm of the number, for counts and prices.
        clip: Largest distance from the mean in standard deviations.
    """

    kind: Literal["periodic"] = "periodic"
    num_frequencies: Annotated[int, Field(ge=1)] = 16
    frequency_std: Annotated[float, Field(gt=0)] = 0.3
    log: bool = False
    clip: Annotated[float, Field(gt=0)] = 10.0

    def build(self, feature: Feature, stats: NumericStats, embedding_dim: int) -> "Periodic":
        """Make the encoder."""
        score = ZScore(stats, log=self.log, clip=self.clip)
        frequencies = torch.randn(feature.width, self.num_frequencies) * self.frequency_std
        return Periodic(score, frequencies=frequencies, embedding_dim=embedding_dim, init_std=self.init_std)


class Periodic(NumericEncoder):
    """``relu(W [sin(2 pi c z), cos(2 pi c z)] + b)`` with learned frequencies ``c``.

    A missing number has no waves; its missing vector is added after the activation. Weights start normal with
    variance ``2 init_std**2 / (w num_frequencies)``, missing vectors with ``init_std**2 / w``, the bias at 0.

    Args:
        score: Standardises the number.
        frequencies: The fresh ``c``.
        embedding_dim: ``D``.
        init_std: Root mean square of fresh vectors.

    Shapes:
        frequencies: float32 ``[w, K]``; x: float32 ``[B, w]``. Returns float32 ``[B, D]``.

    Reference:
        Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022 (PLR).
        Differs from the paper: missing vector, and a start at the scale of id rows.
    """

    interacts = True

    def __init__(self, score: ZScore, *, frequencies: Tensor, embedding_dim: int, init_std: float) -> None:
        super().__init__()
        width, waves = frequencies.shape
        self.embedding_dim = embedding_dim
        self.score = score
        self.frequencies = nn.Parameter(frequencies)
        weight = torch.randn(2 * width * waves, embedding_dim)
        self.weight = nn.Parameter(weight * init_std * (2 / (width * waves)) ** 0.5)
        self.missing = nn.Parameter(torch.randn(width, embedding_dim) * init_std * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(embedding_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        absent = x.isnan()  # [B, w]
        angles = 2 * math.pi * self.score(x)[:, :, None] * self.frequencies  # [B, w, K]
        waves = torch.cat([angles.sin(), angles.cos()], dim=2) * ~absent[:, :, None]  # [B, w, 2 K]
        vectors = (waves.flatten(1) @ self.weight).float() + self.bias  # [B, D]
        return vectors.relu() + (absent.to(x.dtype) @ self.missing).float()
