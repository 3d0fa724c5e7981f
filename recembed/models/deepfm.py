"""DeepFM: a factorization machine and a network over the same fields."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from recembed.batch import Batch
from recembed.models.base import CTRModel, EmbeddingPart, ModelConfig
from recembed.models.blocks import MLP, Activation, Dropout, FirstOrder, Units, fields_and_pairs, output_layer

__all__ = ["DeepFM", "DeepFMConfig"]


class DeepFM(CTRModel):
    """``first order + sum over pairs of fields of <x_i, x_j> + MLP(fields, dense)``.

    Args:
        embedding: The embedding part, with ``linear=True`` and fields of one width.
        hidden_units: Widths of the hidden layers.
        activation: ``relu``, ``gelu``, ``silu`` or ``tanh``.
        dropout: Share of hidden outputs set to 0 in training.
        batch_norm: Normalise before each activation.

    Shapes:
        Returns float32 logits ``[B]``.

    Reference:
        Guo et al., DeepFM, IJCAI 2017.
    """

    needs_linear = True
    needs_equal_widths = True

    def __init__(
        self,
        embedding: EmbeddingPart,
        *,
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: Activation = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(embedding)
        self.first_order = FirstOrder(embedding.dense_width)
        self.deep = MLP(
            sum(embedding.field_widths) + embedding.dense_width,
            hidden_units=hidden_units,
            activation=activation,
            dropout=dropout,
            batch_norm=batch_norm,
        )
        self.output = output_layer(self.deep.out_width)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits."""
        embedded = self.embedding(batch)
        first: Tensor = self.first_order(embedded)  # [B]
        fields, pairs = fields_and_pairs(embedded)
        deep: Tensor = self.output(self.deep(fields))  # [B, 1]
        return first + pairs + deep.squeeze(1).float()  # [B]


class DeepFMConfig(ModelConfig):
    """Settings of ``DeepFM``."""

    kind: Literal["deepfm"] = "deepfm"
    builds: ClassVar[type[CTRModel]] = DeepFM
    hidden_units: Units = (400, 400, 400)
    activation: Activation = "relu"
    dropout: Dropout = 0.0
    batch_norm: bool = False

    def build(self, embedding: EmbeddingPart) -> DeepFM:
        """Make the model."""
        return DeepFM(
            embedding,
            hidden_units=self.hidden_units,
            activation=self.activation,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )
