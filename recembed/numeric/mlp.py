"""A field of a number by a small network."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.numeric.base import FieldConfig, NumericEncoder, ZScore
from recembed.schema.feature import Feature
from recembed.schema.fitted import NumericStats

__all__ = ["MLPConfig", "MLPEncoder"]


class MLPConfig(FieldConfig):
    """A field by a network of one hidden layer.

    Attributes:
        hidden_units: Width of the hidden layer.
        log: Standardise the signed logarithm of the number, for counts and prices.
        clip: Largest distance from the mean in standard deviations.
    """

    kind: Literal["mlp"] = "mlp"
    hidden_units: Annotated[int, Field(ge=1)] = 64
    log: bool = False
    clip: Annotated[float, Field(gt=0)] = 10.0

    def build(self, feature: Feature, stats: NumericStats, embedding_dim: int) -> "MLPEncoder":
        """Make the encoder."""
        score = ZScore(stats, log=self.log, clip=self.clip)
        hidden = nn.Linear(2 * feature.width, self.hidden_units)
        return MLPEncoder(score, hidden=hidden, embedding_dim=embedding_dim, init_std=self.init_std)


class MLPEncoder(NumericEncoder):
    """``W2 relu(W1 [z, missing] + b1) + b2``: the network reads numbers and missing indicators together.

    ``W1`` starts normal with variance ``2 / w``, ``W2`` with ``init_std**2 / hidden_units``, biases at 0.

    Shapes:
        x: float32 ``[B, w]``. Returns float32 ``[B, D]``.
    """

    interacts = True

    def __init__(self, score: ZScore, *, hidden: nn.Linear, embedding_dim: int, init_std: float) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.score = score
        self.hidden = hidden
        self.output = nn.Linear(hidden.out_features, embedding_dim)
        nn.init.normal_(self.hidden.weight, std=(2 / (hidden.in_features // 2)) ** 0.5)
        nn.init.normal_(self.output.weight, std=init_std * hidden.out_features**-0.5)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        inputs = torch.cat([self.score(x), x.isnan().to(x.dtype)], dim=1)  # [B, 2 w]
        vectors: Tensor = self.output(self.hidden(inputs).relu())  # [B, D]
        return vectors.float()
