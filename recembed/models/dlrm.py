"""DLRM: dot products of all pairs of fields and of a vector made from the dense columns."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from recembed.batch import Batch
from recembed.errors import ConfigError
from recembed.models.base import CTRModel, EmbeddingPart, ModelConfig
from recembed.models.blocks import MLP, Dropout, Units, output_layer
from recembed.models.pairwise_dot import PairwiseDot

__all__ = ["DLRM", "DLRMConfig"]


class DLRM(CTRModel):
    """``top MLP(dense vector, dot products of all pairs)``, ``dense vector = bottom MLP(dense)``.

    With ``F`` fields of width ``D`` the top reads ``D + (F + 1) F / 2`` numbers: first the dense vector, then the lower
    triangle of the Gram matrix of dense vector and fields, without its diagonal. Without dense columns there is no
    bottom, and the top reads the ``F (F - 1) / 2`` dot products of the fields.

    Args:
        embedding: The embedding part, with fields of one width ``D``.
        bottom_units: Widths of the bottom's hidden layers; a layer of width ``D`` follows, also with a ReLU.
        top_units: Widths of the top's hidden layers.
        dropout: Share of hidden outputs of the top set to 0 in training.
        batch_norm: Normalise before each activation.

    Shapes:
        Returns float32 logits ``[B]``.

    Raises:
        ConfigError: There are too few fields to make a pair.

    Reference:
        Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, 2019.
        Differs from the paper: He initialisation of the networks.
    """

    needs_equal_widths = True

    def __init__(
        self,
        embedding: EmbeddingPart,
        *,
        bottom_units: Sequence[int] = (512, 256),
        top_units: Sequence[int] = (512, 256),
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(embedding)
        fields, dense = len(embedding.field_keys), embedding.dense_width
        if not fields or fields + bool(dense) < 2:
            raise ConfigError(
                f"DLRM has {fields} fields and {dense} dense columns: it needs two fields, or one and dense"
            )
        dim = embedding.field_widths[0]
        self.bottom = MLP(dense, hidden_units=(*bottom_units, dim), batch_norm=batch_norm) if dense else None
        self.interaction = PairwiseDot(fields + bool(dense))
        in_width = self.interaction.out_width + (dim if dense else 0)
        self.top = MLP(in_width, hidden_units=top_units, dropout=dropout, batch_norm=batch_norm)
        self.output = output_layer(self.top.out_width)

    def interact(self, batch: Batch) -> Tensor:
        """Return what the top reads, ``[B, D + (F + 1) F / 2]``."""
        embedded = self.embedding(batch)
        vectors = embedded.fields.stack()  # [B, F, D]
        if self.bottom is None:
            dots: Tensor = self.interaction(vectors)
            return dots  # [B, F (F - 1) / 2]
        dense: Tensor = self.bottom(embedded.dense)  # [B, D]
        vectors = torch.cat([dense[:, None], vectors.to(dense.dtype)], dim=1)  # [B, F + 1, D]
        return torch.cat([dense, self.interaction(vectors)], dim=1)  # [B, D + (F + 1) F / 2]

    def forward(self, batch: Batch) -> Tensor:
        """Return logits."""
        logits: Tensor = self.output(self.top(self.interact(batch)))  # [B, 1]
        return logits.squeeze(1).float()  # [B]


class DLRMConfig(ModelConfig):
    """Settings of ``DLRM``."""

    kind: Literal["dlrm"] = "dlrm"
    builds: ClassVar[type[CTRModel]] = DLRM
    bottom_units: Units = (512, 256)
    top_units: Units = (512, 256)
    dropout: Dropout = 0.0
    batch_norm: bool = False

    def build(self, embedding: EmbeddingPart) -> DLRM:
        """Make the model."""
        return DLRM(
            embedding,
            bottom_units=self.bottom_units,
            top_units=self.top_units,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )
