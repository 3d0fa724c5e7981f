"""``NumericFeatures``: the encoders of all numeric features, each with its columns of the batch.

Axes: ``B`` rows, ``W`` numeric columns, ``D`` width of an encoder.
"""

from typing import cast

from torch import Tensor, nn

from recembed.embedding.config import EmbeddingConfig
from recembed.numeric import NumericEncoder
from recembed.schema.fitted import FittedSchema

__all__ = ["NumericFeatures"]


class NumericFeatures(nn.ModuleList):
    """Encode numbers, as fields beside the embeddings or as dense columns.

    Args:
        fitted: Schema with its statistics.
        config: The encoder of each feature.
        fields: Keep the encoders that make fields; False leaves those of dense columns alone.

    Attributes:
        fields: Name and width of every field, in schema order.
        dense_width: Columns that are not fields.
    """

    def __init__(self, fitted: FittedSchema, config: EmbeddingConfig, *, fields: bool) -> None:
        super().__init__()
        self.fields: list[tuple[str, int]] = []
        self.dense_width = 0
        self._columns: list[slice] = []
        for feature, place in zip(fitted.schema.numeric, fitted.numeric_columns, strict=True):
            encoder = config.numeric_of(feature.name).build(feature, fitted.numeric[feature.name], config.embedding_dim)
            if encoder.interacts and not fields:
                continue
            self.append(encoder)
            self._columns.append(slice(place.start, place.start + place.width))
            if encoder.interacts:
                self.fields.append((feature.name, encoder.embedding_dim))
            else:
                self.dense_width += encoder.embedding_dim

    def forward(self, numeric: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the fields and the dense columns of ``numeric`` ``[B, W]``, each ``[B, D]``."""
        fields: list[Tensor] = []
        dense: list[Tensor] = []
        for module, columns in zip(self, self._columns, strict=True):
            encoder = cast(NumericEncoder, module)
            (fields if encoder.interacts else dense).append(encoder(numeric[:, columns]))
        return fields, dense
