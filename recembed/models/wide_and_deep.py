"""Wide & Deep: first-order weights and a network over all fields."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from recembed.batch import Batch
from recembed.models.base import CTRModel, EmbeddingPart, ModelConfig
from recembed.models.blocks import MLP, Activation, Dropout, FirstOrder, Units, output_layer

__all__ = ["WideAndDeep", "WideAndDeepConfig"]


class WideAndDeep(CTRModel):
    """``first order + MLP(fields, dense)``.

    Args:
        embedding: The embedding part, with ``linear=True``; fields may differ in width.
        hidden_units: Widths of the hidden layers.
        activation: ``relu``, ``gelu``, ``silu`` or ``tanh``.
        dropout: Share of hidden outputs set to 0 in training.
        batch_norm: Normalise before each activation.

    Shapes:
        Returns float32 logits ``[B]``.

    Reference:
        Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016. Differs from the paper: no hand-made
        crosses; the wide part is trained like the rest (the paper uses FTRL).
    """

    needs_linear = True

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
        deep: Tensor = self.output(self.deep(embedded.concat()))  # [B, 1]
        return first + deep.squeeze(1).float()  # [B]


class WideAndDeepConfig(ModelConfig):
    """Settings of ``WideAndDeep``."""

    kind: Literal["wide_and_deep"] = "wide_and_deep"
    builds: ClassVar[type[CTRModel]] = WideAndDeep
    hidden_units: Units = (400, 400, 400)
    activation: Activation = "relu"
    dropout: Dropout = 0.0
    batch_norm: bool = False

    def build(self, embedding: EmbeddingPart) -> WideAndDeep:
        """Make the model."""
        return WideAndDeep(
            embedding,
            hidden_units=self.hidden_units,
            activation=self.activation,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )
