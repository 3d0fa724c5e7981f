"""Factorization machine: first-order weights and all pairs of fields."""

from typing import ClassVar, Literal

from torch import Tensor

from recembed.batch import Batch
from recembed.models.base import CTRModel, EmbeddingPart, ModelConfig
from recembed.models.blocks import FirstOrder, factorization_machine

__all__ = ["FM", "FMConfig"]


class FM(CTRModel):
    """``first order + sum over pairs of fields of <x_i, x_j>``.

    Args:
        embedding: The embedding part, with ``linear=True`` and fields of one width.

    Shapes:
        Returns float32 logits ``[B]``.

    Reference:
        Rendle, Factorization Machines, ICDM 2010. Differs from the paper: a dense column has a first-order weight
        only; give it a field encoder (``numeric: linear``) to let it interact.
    """

    needs_linear = True
    needs_equal_widths = True

    def __init__(self, embedding: EmbeddingPart) -> None:
        super().__init__(embedding)
        self.first_order = FirstOrder(embedding.dense_width)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits."""
        embedded = self.embedding(batch)
        first: Tensor = self.first_order(embedded)  # [B]
        return first + factorization_machine(embedded.fields.stack())  # [B]


class FMConfig(ModelConfig):
    """Settings of ``FM``: none."""

    kind: Literal["fm"] = "fm"
    builds: ClassVar[type[CTRModel]] = FM

    def build(self, embedding: EmbeddingPart) -> FM:
        """Make the model."""
        return FM(embedding)
