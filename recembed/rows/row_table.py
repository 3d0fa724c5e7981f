"""``RowTable``: a named block of rows, and the law of its fresh rows."""

from dataclasses import dataclass, field
from typing import Literal

from recembed.errors import ConfigError

__all__ = ["Init", "Part", "RowDtype", "RowTable"]

RowDtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Init:
    """How fresh rows are drawn: uniform in ``(-scale, scale)`` or normal with standard deviation ``scale``."""

    scale: float = 0.01
    law: Literal["uniform", "normal"] = "normal"


@dataclass(frozen=True, slots=True)
class Part:
    """Where a table lies in a larger one, whose fresh rows it takes.

    Attributes:
        name: Of the larger table.
        num_embeddings, embedding_dim: Its size.
        first_row, first_column: Where the part begins.
    """

    name: str
    num_embeddings: int
    embedding_dim: int
    first_row: int = 0
    first_column: int = 0


@dataclass(frozen=True, slots=True)
class RowTable:
    """A named block of rows; two methods that name the same table share its rows.

    Attributes:
        name: Unique within a model; checkpoints are keyed by it.
        num_embeddings: Rows.
        embedding_dim: Numbers per row.
        init: Law of fresh rows.
        part: The larger table that this one is a part of.
        dtype: What a number is held as in training; those of one store are alike.
    """

    name: str
    num_embeddings: int
    embedding_dim: int
    init: Init = field(default_factory=Init)
    part: Part | None = None
    dtype: RowDtype = "float32"

    def __post_init__(self) -> None:
        """Refuse sizes no table can have."""
        for size in ("num_embeddings", "embedding_dim"):
            if getattr(self, size) < 1:
                raise ConfigError(f"table {self.name!r}: {size} = {getattr(self, size)}: expected at least 1")

    @property
    def bytes(self) -> int:
        """Bytes of the rows in training."""
        return (4 if self.dtype == "float32" else 2) * self.num_embeddings * self.embedding_dim
