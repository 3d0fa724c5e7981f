"""DCN V2: a cross network and a network of hidden layers, side by side or one after the other."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from recembed.batch import Batch
from recembed.models.base import CTRModel, EmbeddingPart, ModelConfig
from recembed.models.blocks import MLP, Dropout, Units, output_layer
from recembed.models.cross import CrossNetwork

__all__ = ["Cross", "DCNv2", "DCNv2Config"]


class Cross(BaseModel):
    """How the cross network is made and where it stands.

    Attributes:
        layers: Cross layers.
        rank: None for full-rank matrices, else the rank of the low-rank mixture.
        experts: Experts of the low-rank mixture.
        stacked: Feed the hidden layers from the cross network, not from the input beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    layers: Annotated[int, Field(ge=1)] = 3
    rank: Annotated[int, Field(ge=1)] | None = None
    experts: Annotated[int, Field(ge=1)] = 1
    stacked: bool = False


_CROSS = Cross()


class DCNv2(CTRModel):
    """Parallel: ``w . [cross(x), MLP(x)] + b``; stacked: ``w . MLP(cross(x)) + b``; ``x`` is fields and dense columns.

    Args:
        embedding: The embedding part; fields may differ in width.
        cross: The cross network.
        hidden_units: Widths of the hidden layers; none for the cross network alone.
        dropout: Share of hidden outputs set to 0 in training.
        batch_norm: Normalise before each activation.

    Shapes:
        Returns float32 logits ``[B]``.

    Reference:
        Wang et al., DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank
        Systems, WWW 2021.
    """

    def __init__(
        self,
        embedding: EmbeddingPart,
        *,
        cross: Cross = _CROSS,
        hidden_units: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(embedding)
        width = sum(embedding.field_widths) + embedding.dense_width
        self.stacked = cross.stacked or not hidden_units
        self.cross = CrossNetwork(width, layers=cross.layers, rank=cross.rank, experts=cross.experts)
        self.deep = MLP(width, hidden_units=hidden_units, dropout=dropout, batch_norm=batch_norm)
        self.output = output_layer(self.deep.out_width + (0 if self.stacked else width))

    def forward(self, batch: Batch) -> Tensor:
        """Return logits."""
        x = self.embedding(batch).concat()  # [B, W]
        crossed: Tensor = self.cross(x)  # [B, W]
        read = self.deep(crossed) if self.stacked else torch.cat([crossed, self.deep(x)], dim=1)  # [B, out]
        logits: Tensor = self.output(read)  # [B, 1]
        return logits.squeeze(1).float()  # [B]


class DCNv2Config(ModelConfig):
    """Settings of ``DCNv2``."""

    kind: Literal["dcnv2"] = "dcnv2"
    builds: ClassVar[type[CTRModel]] = DCNv2
    cross: Cross = _CROSS
    hidden_units: Units = (400, 400, 400)
    dropout: Dropout = 0.0
    batch_norm: bool = False

    def build(self, embedding: EmbeddingPart) -> DCNv2:
        """Make the model."""
        return DCNv2(
            embedding,
            cross=self.cross,
            hidden_units=self.hidden_units,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )
