"""A field of a number by a line: one direction per number, as factorisation machines treat real features."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.numeric.base import FieldConfig, NumericEncoder, ZScore
from recembed.schema.feature import Feature
from recembed.schema.fitted import NumericStats

__all__ = ["Linear", "LinearConfig"]


class LinearConfig(FieldConfig):
    """A field ``z w + b`` of the standardised number ``z``.

    Attributes:
        log: Standardise the signed logarithm of the number, for counts and prices.
        clip: Largest distance from the mean in standard deviations.
    """

    kind: Literal["linear"] = "linear"
    log: bool = False
    clip: Annotated[float, Field(gt=0)] = 10.0

    def build(self, feature: Feature, stats: NumericStats, embedding_dim: int) -> "Linear":
        """Make the encoder."""
        score = ZScore(stats, log=self.log, clip=self.clip)
        return Linear(score, width=feature.width, embedding_dim=embedding_dim, init_std=self.init_std)


class Linear(NumericEncoder):
    """``sum over the numbers of z w, plus b``; a missing number gives its missing vector in place of ``z w``.

    Weights and missing vectors start normal with variance ``init_std**2 / w``, the bias at 0.

    Shapes:
        x: float32 ``[B, w]``. Returns float32 ``[B, D]``.

    Reference:
        Rendle, Factorization Machines, ICDM 2010. Differs from the paper: bias and missing vector.
    """

    interacts = True

    def __init__(self, score: ZScore, *, width: int, embedding_dim: int, init_std: float) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.score = score
        self.weight = nn.Parameter(torch.randn(width, embedding_dim) * init_std * width**-0.5)
        self.missing = nn.Parameter(torch.randn(width, embedding_dim) * init_std * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(embedding_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        missing = x.isnan().to(x.dtype)  # [B, w]
        z: Tensor = self.score(x)  # [B, w]
        return (z @ self.weight + missing @ self.missing).float() + self.bias  # [B, D]
