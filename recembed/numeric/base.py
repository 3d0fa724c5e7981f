"""The contract of numeric encoders, and the standardisation that most of them begin with.

Axes: ``B`` rows, ``w`` numbers of the feature, ``D`` width of the field.

Missing and huge numbers: NaN is missing, and every encoder says what it makes of it. A standardised number is clipped
to ``clip`` standard deviations from the mean, infinities too, so no input can blow up a model.
"""

from abc import ABC, abstractmethod
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from recembed.schema.feature import Feature
from recembed.schema.fitted import NumericStats

__all__ = ["FieldConfig", "NumericConfig", "NumericEncoder", "ZScore", "signed_log1p"]


class NumericEncoder(nn.Module, ABC):
    """Numbers of one feature in, one vector per row out.

    Attributes:
        embedding_dim: Numbers per row that come out.
        interacts: True for a field of a model's width; False for dense columns, which enter a model as they are.
    """

    embedding_dim: int
    interacts: bool

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Encode float32 ``[B, w]``, NaN where missing, as float32 ``[B, embedding_dim]``."""


class NumericConfig(BaseModel, ABC):
    """How one numeric feature is encoded; each kind of encoder has its own record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def build(self, feature: Feature, stats: NumericStats, embedding_dim: int) -> NumericEncoder:
        """Make the encoder; weights come from torch's global random generator."""


class FieldConfig(NumericConfig, ABC):
    """A record of an encoder whose vector interacts with the vectors of ids.

    Attributes:
        init_std: Root mean square of a fresh vector's entries over standard normal input. It is that of fresh id rows:
            numeric vectors that start larger drown the ids in a factorisation machine and start it with huge logits.
    """

    init_std: Annotated[float, Field(gt=0)] = 0.03


def signed_log1p(x: Tensor) -> Tensor:
    """Return ``sign(x) log(1 + |x|)``: odd, monotone, defined for negatives, slope 1 at 0.

    >>> signed_log1p(torch.tensor([-2.0, 0.0, 2.0]))
    tensor([-1.0986,  0.0000,  1.0986])
    """
    return x.sign() * x.abs().log1p()


class ZScore(nn.Module):
    """Standardise each number by the fitted mean and standard deviation.

    Missing becomes 0, the mean. A constant column is only centred. The result is clipped to ``-clip .. clip``.

    Args:
        stats: Fitted on the training rows.
        log: Take ``signed_log1p`` first, and the statistics of the logarithm.
        clip: Largest distance from the mean in standard deviations.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stats: NumericStats, *, log: bool, clip: float) -> None:
        super().__init__()
        mean, std = (stats.log_mean, stats.log_std) if log else (stats.mean, stats.std)
        std = np.where(np.isfinite(std) & (std > 0), std, 1.0)
        self.log = log
        self.clip = clip
        self.register_buffer("mean", torch.tensor(np.nan_to_num(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 ``[B, w]`` to finite float32 ``[B, w]``."""
        if self.log:
            x = signed_log1p(x)  # [B, w]
        z = ((x - self.mean) / self.std).clamp(-self.clip, self.clip)  # [B, w], NaN where missing
        return torch.where(z.isnan(), 0.0, z)
