"""Multi-embedding: several sets of vectors, each with an interaction of its own.

Axes: ``B`` rows, ``M`` sets, ``F`` fields, ``d`` width of a field in one set.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.embedded import Embedded, KeyedTensor
from recembed.errors import ConfigError
from recembed.models.base import CTRModel, EmbeddingPart, ModelConfig
from recembed.models.dcnv2 import DCNv2Config
from recembed.settings import parse_kind

__all__ = ["EmbeddingSet", "MultiEmbedding", "MultiEmbeddingConfig"]

_DCNV2 = DCNv2Config()


@dataclass(frozen=True, slots=True)
class _EmbeddedBatch(Batch):
    """A batch that was looked up already, so that every set reads the same lookup.

    Shapes:
        embedded: what the embedding part made of it.
    """

    embedded: Embedded | None = None


class EmbeddingSet:
    """One set's view of an embedding part: ``d`` numbers of every field, dense columns and first-order weights whole.

    Args:
        whole: The embedding part, with fields ``M d`` wide.
        place: Which set, from 0.
        sets: ``M``.
    """

    def __init__(self, whole: EmbeddingPart, place: int, sets: int) -> None:
        self.field_keys = whole.field_keys
        self.field_widths = tuple(width // sets for width in whole.field_widths)
        self.dense_width = whole.dense_width
        self.linear = whole.linear
        self.sequence_widths = whole.sequence_widths
        self._place, self._sets = place, sets

    def __call__(self, batch: Batch) -> Embedded:
        """Return this set's part of the lookup that comes with the batch."""
        whole = cast(Embedded, cast(_EmbeddedBatch, batch).embedded)
        return Embedded(self._cut(whole.fields), whole.dense, whole.linear, whole.sequences)

    def _cut(self, fields: KeyedTensor) -> KeyedTensor:
        if self._sets == 1:
            return fields
        if len(set(self.field_widths)) == 1:
            shape = (-1, len(self.field_keys), self._sets, self.field_widths[0])
            values = fields.values.view(shape)[:, :, self._place]  # [B, F, d]
            return KeyedTensor(self.field_keys, self.field_widths, values.flatten(1))
        parts = torch.split(fields.values, list(fields.widths), dim=1)
        own = [
            part[:, self._place * d : (self._place + 1) * d] for part, d in zip(parts, self.field_widths, strict=True)
        ]
        return KeyedTensor(self.field_keys, self.field_widths, torch.cat(own, dim=1))


class MultiEmbedding(CTRModel):
    """``mean over the sets of model_m(set m of every field)``; ``M = 1`` is the model itself.

    A wide table keeps few directions in use: a field's vectors are pulled into the span that small fields leave. Sets
    with weights of their own each find other directions. Fields are ``M d`` wide: set ``m`` reads numbers ``m d`` to
    ``(m + 1) d``. Rows are looked up once a batch. Dense columns and first-order weights go to every set whole, and the
    mean counts them once. The rows take the bytes of one table ``M d`` wide, the networks ``M`` times those of a model
    of width ``d``. FM has no weights in its interaction and gains nothing.

    The sets are not ``M`` independent tables. They lie side by side in one row: a hashed id collides in all sets alike,
    and row-wise Adagrad keeps one sum of squares per row, so that a set whose gradients are large slows the others
    down. Under SGD, Adam or Adagrad per number they move as independent tables would.

    Args:
        embedding: The embedding part; every field's width must be a multiple of ``sets``.
        model: The interaction of each set.
        sets: ``M``.

    Shapes:
        Returns float32 logits ``[B]``.

    Raises:
        ConfigError: a width does not divide, or the model reads no vectors.

    Reference:
        Guo et al., On the Embedding Collapse when Scaling up Recommendation Models, ICML 2024. Differs from the paper:
        whole models are averaged, each with a head of its own (paper: interaction outputs are averaged before one head).
    """

    def __init__(self, embedding: EmbeddingPart, *, model: ModelConfig = _DCNV2, sets: int = 2) -> None:
        super().__init__(embedding)
        if not model.builds.needs_fields:
            raise ConfigError(
                f"model 'multi_embedding' around {type(model).__name__.removesuffix('Config')}: it reads no vectors, so "
                "there are no sets of them; choose a model that does, such as 'dcnv2' or 'deepfm'"
            )
        for key, width in zip(embedding.field_keys, embedding.field_widths, strict=True):
            if width % sets:
                raise ConfigError(
                    f"model 'multi_embedding': field {key!r} is {width} wide, not a multiple of sets = {sets}; set "
                    f"embeddings.embedding_dim to {sets} times the width of one set, such as {width * sets}"
                )
        self.models = nn.ModuleList(model.build(EmbeddingSet(embedding, place, sets)) for place in range(sets))

    def forward(self, batch: Batch) -> Tensor:
        """Return logits."""
        embedded = self.embedding(batch)
        known = _EmbeddedBatch(batch.ids, batch.jagged, batch.numeric, batch.labels, batch.rows, embedded)
        logits = [model(known) for model in self.models]  # M times [B]
        return torch.stack(logits).mean(0)  # [B]


def _parse_inner(raw: Any) -> ModelConfig:
    from recembed.models import MODELS  # the dictionary of kinds lists this file too

    config = parse_kind(raw, MODELS, "model kind")
    if isinstance(config, MultiEmbeddingConfig):
        raise ConfigError("model 'multi_embedding' holds another one; multiply their sets in one of them")
    return config


class _Builds:
    """The class: ``MultiEmbedding``; of a record: the class whose needs count, that of the model inside."""

    def __get__(self, record: "MultiEmbeddingConfig | None", owner: type) -> type[CTRModel]:
        return MultiEmbedding if record is None else record.model.builds


class MultiEmbeddingConfig(ModelConfig):
    """Settings of ``MultiEmbedding``.

    Attributes:
        model: The model of each set: one word, or a mapping with ``kind``.
        sets: Sets of vectors; ``embeddings.embedding_dim`` must be a multiple of it.

    >>> config = MultiEmbeddingConfig(model={"kind": "deepfm", "hidden_units": (8,)}, sets=3)
    >>> config.model.kind, config.builds.needs_linear, MultiEmbeddingConfig.builds.__name__
    ('deepfm', True, 'MultiEmbedding')
    """

    kind: Literal["multi_embedding"] = "multi_embedding"
    builds: ClassVar[Any] = _Builds()
    model: Annotated[SerializeAsAny[ModelConfig], BeforeValidator(_parse_inner)] = _DCNV2
    sets: Annotated[int, Field(ge=1)] = 2

    def build(self, embedding: EmbeddingPart) -> MultiEmbedding:
        """Make the model."""
        return MultiEmbedding(embedding, model=self.model, sets=self.sets)
