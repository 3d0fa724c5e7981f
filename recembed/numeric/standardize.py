"""Numbers as dense columns: standardised as they are, or on a logarithmic scale."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.numeric.base import NumericConfig, NumericEncoder, ZScore
from recembed.schema.feature import Feature
from recembed.schema.fitted import NumericStats

__all__ = ["Columns", "LogConfig", "StandardizeConfig"]


class StandardizeConfig(NumericConfig):
    """Dense columns ``(x - mean) / std``.

    Attributes:
        clip: Largest distance from the mean in standard deviations.
        missing_indicator: Add a column per number, 1 where it is missing. Without it, missing looks like the mean.
    """

    kind: Literal["standardize"] = "standardize"
    clip: Annotated[float, Field(gt=0)] = 10.0
    missing_indicator: bool = False

    def build(self, feature: Feature, stats: NumericStats, embedding_dim: int) -> "Columns":
        """Make the encoder; ``embedding_dim`` is that of fields and not used."""
        score = ZScore(stats, log=False, clip=self.clip)
        return Columns(score, width=feature.width, missing_indicator=self.missing_indicator)


class LogConfig(NumericConfig):
    """Dense columns ``(l - mean of l) / (std of l)`` with ``l = sign(x) log(1 + |x|)``: for counts and prices.

    Negatives keep their sign and order: -2 becomes -1.0986 before standardisation.

    Attributes:
        clip: Largest distance from the mean in standard deviations.
        missing_indicator: Add a column per number, 1 where it is missing. Without it, missing looks like the mean.
    """

    kind: Literal["log"] = "log"
    clip: Annotated[float, Field(gt=0)] = 10.0
    missing_indicator: bool = False

    def build(self, feature: Feature, stats: NumericStats, embedding_dim: int) -> "Columns":
        """Make the encoder; ``embedding_dim`` is that of fields and not used."""
        score = ZScore(stats, log=True, clip=self.clip)
        return Columns(score, width=feature.width, missing_indicator=self.missing_indicator)


class Columns(NumericEncoder):
    """Standardised numbers, and after them the missing indicators if asked for.

    Shapes:
        x: float32 ``[B, w]``. Returns float32 ``[B, w]``, or ``[B, 2 w]`` with indicators.
    """

    interacts = False

    def __init__(self, score: ZScore, *, width: int, missing_indicator: bool) -> None:
        super().__init__()
        self.score = score
        self.missing_indicator = missing_indicator
        self.embedding_dim = 2 * width if missing_indicator else width

    def forward(self, x: Tensor) -> Tensor:
        """Standardise."""
        z: Tensor = self.score(x)  # [B, w]
        if not self.missing_indicator:
            return z
        return torch.cat([z, x.isnan().to(z.dtype)], dim=1)  # [B, 2 w]
