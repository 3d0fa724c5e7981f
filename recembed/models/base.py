"""The contract of CTR models: a batch in, one logit per row out."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.embedded import Embedded
from recembed.errors import ConfigError

__all__ = ["CTRModel", "EmbeddingPart", "ModelConfig"]


class EmbeddingPart(Protocol):
    """What a model asks of its embedding part: a ``FeatureEmbedding``, or any module like it."""

    @property
    def field_keys(self) -> tuple[str, ...]:
        """Names of the fields."""

    @property
    def field_widths(self) -> tuple[int, ...]:
        """Their widths."""

    @property
    def dense_width(self) -> int:
        """Dense columns."""

    @property
    def linear(self) -> bool:
        """Whether first-order weights are looked up too."""

    @property
    def sequence_widths(self) -> dict[str, int]:
        """Widths of the sequences that are not pooled, by name."""

    def __call__(self, batch: Batch) -> Embedded:
        """Embed a batch."""


class CTRModel(nn.Module, ABC):
    """Base of the models.

    Attributes:
        needs_fields: Whether the model reads vectors at all; else the embedding may be built with ``fields=False``.
        needs_linear: Whether the embedding must be built with ``linear=True``.
        needs_equal_widths: Whether all fields must have one width.

    Args:
        embedding: The embedding part.

    Raises:
        ConfigError: The embedding lacks what the model needs.
    """

    needs_fields: ClassVar[bool] = True
    needs_linear: ClassVar[bool] = False
    needs_equal_widths: ClassVar[bool] = False
    embedding: EmbeddingPart

    def __init__(self, embedding: EmbeddingPart) -> None:
        super().__init__()
        name = type(self).__name__
        if embedding.sequence_widths:
            raise ConfigError(
                f"{name} takes one vector per feature, but {', '.join(embedding.sequence_widths)} comes as a sequence: "
                "set its pooling to 'sum', 'mean' or 'max'"
            )
        if self.needs_linear and not embedding.linear:
            raise ConfigError(f"{name} needs first-order weights: build the embedding with linear=True")
        if self.needs_equal_widths and len(set(embedding.field_widths)) > 1:
            widths = zip(embedding.field_keys, embedding.field_widths, strict=True)
            shown = ", ".join(f"{key} {width}" for key, width in widths)
            raise ConfigError(
                f"{name} needs fields of one width, not {shown}: set embeddings.project = true to make them equal"
            )
        self.embedding = embedding

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return float32 logits ``[B]``."""


class ModelConfig(BaseModel, ABC):
    """The settings of one model; each model has its own record.

    Attributes:
        builds: The model's class, to be asked for ``needs_linear`` before there is an embedding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    builds: ClassVar[type[CTRModel]]

    @abstractmethod
    def build(self, embedding: EmbeddingPart) -> CTRModel:
        """Make the model; weights come from torch's global random generator."""
