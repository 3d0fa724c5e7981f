"""``TableSpec``: what a method is asked to embed."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recembed.errors import ConfigError
from recembed.rows import Init, ServedDtype

__all__ = ["TableSpec"]


@dataclass(frozen=True, slots=True, eq=False)
class TableSpec:
    """What a method is asked to embed.

    Attributes:
        name: The feature (or the vocabulary that several features share); salts and row tables are named by it.
        num_embeddings: Ids of the vocabulary, reserved ones included; None where the feature has no vocabulary.
        embedding_dim: Width of the vectors asked for.
        init: Law of fresh rows.
        linear: These are the first-order weights (width 1), in tables of their own.
        counts: int64 ``[num_embeddings]``, training occurrences per id, or None.
        reserved_ids: Ids at the front that are no known values: padding, missing, out of vocabulary.
        vector_dim: Width of the feature's vectors, where these are its first-order weights.
        served_dtype: Type of the rows that are served; a method whose compact form holds rows sizes them by it.
        values: The raw values of the known ids, from ``reserved_ids`` on; None where there is no vocabulary.
    """

    name: str
    num_embeddings: int | None
    embedding_dim: int
    init: Init = field(default_factory=Init)
    linear: bool = False
    counts: np.ndarray | None = None
    reserved_ids: int = 0
    vector_dim: int | None = None
    served_dtype: ServedDtype = "float32"
    values: pl.Series | None = None

    def table_name(self, store: str | None = None) -> str:
        """Return the name of a row table for this spec, or of the ``store`` it shares."""
        return f"{store or self.name}.linear" if self.linear else (store or self.name)

    def known_ids(self, kind: str) -> int:
        """Return ``num_embeddings``; a method that needs a vocabulary calls this."""
        if self.num_embeddings is None:
            raise ConfigError(
                f"feature {self.name!r} has no vocabulary, and table {kind!r} needs its size; set vocabulary: true, "
                "or choose a hash method with num_embeddings"
            )
        return self.num_embeddings
