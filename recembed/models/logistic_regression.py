"""Logistic regression: the first-order weights alone."""

from typing import ClassVar, Literal

from torch import Tensor

from recembed.batch import Batch
from recembed.models.base import CTRModel, EmbeddingPart, ModelConfig
from recembed.models.blocks import FirstOrder

__all__ = ["LogisticRegression", "LogisticRegressionConfig"]


class LogisticRegression(CTRModel):
    """``sum of the ids' weights + w . dense + b``.

    Args:
        embedding: The embedding part, with ``linear=True``; it needs no fields.

    Shapes:
        Returns float32 logits ``[B]``.
    """

    needs_fields = False
    needs_linear = True

    def __init__(self, embedding: EmbeddingPart) -> None:
        super().__init__(embedding)
        self.first_order = FirstOrder(embedding.dense_width)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits."""
        logits: Tensor = self.first_order(self.embedding(batch))  # [B]
        return logits


class LogisticRegressionConfig(ModelConfig):
    """Settings of ``LogisticRegression``: none."""

    kind: Literal["logistic_regression"] = "logistic_regression"
    builds: ClassVar[type[CTRModel]] = LogisticRegression

    def build(self, embedding: EmbeddingPart) -> LogisticRegression:
        """Make the model."""
        return LogisticRegression(embedding)
