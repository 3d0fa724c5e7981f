"""``compositional``: an id's vector is composed of rows that it shares with other ids, never all with the same one.

Shi et al., Compositional Embeddings Using Complementary Partitions for Memory-Efficient Recommendation Systems, KDD 2020:
the quotient-remainder trick (two partitions) and its k-partition form. Differs from the paper: factors are drawn
symmetrically, at the scale that makes a product as large as a plain row; no path-based networks.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import Init, RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.radix import balanced_radices, digits
from recembed.tables.spec import TableSpec

__all__ = ["CompositionalConfig", "CompositionalTable"]

Composition = Literal["product", "sum", "concat"]


class CompositionalConfig(TableConfig):
    """A few small tables per feature, one for each digit of the id; bytes ``4 * width * sum(radices)``.

    The digits are those of a number written in mixed radix: with two partitions the remainder ``id % m`` and the
    quotient ``id // m``. ``width`` is ``embedding_dim``, divided by ``partitions`` under ``concat``. An id costs
    ``partitions`` lookups. First-order weights are always summed: a product of weights that start at zero would
    stay there.

    Attributes:
        partitions: Digits per id.
        combine: ``product`` (elementwise), ``sum`` or ``concat`` of the rows.
        num_embeddings: Rows of every partition but the last, which gets as many as the ids need.
        ratio: Bytes as a share of the exact table's, met by a larger first partition; where even the smallest form
            is above it, the smallest is taken. Without ``ratio`` and ``num_embeddings`` all partitions are
            about ``num_embeddings ** (1 / partitions)`` rows, which is the smallest form.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: ``partitions`` does not divide ``embedding_dim`` under ``concat``; a feature has no vocabulary.

    >>> table = CompositionalConfig().build([TableSpec("item", 1000, 8)], seed=0)["item"]
    >>> [slot.num_embeddings for slot in table.slots], table.address(torch.tensor([67])).tolist()
    ([32, 32], [[3, 2]])
    """

    kind: Literal["compositional"] = "compositional"
    sized_by: ClassVar[str] = "num_embeddings"
    partitions: Annotated[int, Field(ge=2, le=16)] = 2
    combine: Composition = "product"
    num_embeddings: Annotated[int, Field(ge=2)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec) for spec in specs}

    def _build_one(self, spec: TableSpec) -> Table:
        ids = spec.known_ids("compositional")
        combine: Composition = "sum" if spec.linear else self.combine
        if combine == "concat" and spec.embedding_dim % self.partitions:
            raise ConfigError(
                f"feature {spec.name!r}: partitions = {self.partitions} does not divide embedding_dim = "
                f"{spec.embedding_dim}; change one of them, or set combine to 'product' or 'sum'"
            )
        width = spec.embedding_dim // (self.partitions if combine == "concat" else 1)
        radices = self._radices(ids, ids * spec.embedding_dim // width)
        if ids <= self.exact_below or sum(radices) * width >= ids * spec.embedding_dim:
            return FullTable.of(spec)
        init = _factor_init(spec.init, self.partitions, combine)
        name = spec.table_name()
        slots = [RowTable(f"{name}.digit_{i}", radix, width, init) for i, radix in enumerate(radices)]
        return CompositionalTable(slots, combine)

    def _radices(self, ids: int, exact_rows: int) -> tuple[int, ...]:
        """Return the rows of each partition; ``exact_rows`` is what the exact table holds, in rows as wide as ours."""
        if self.num_embeddings is not None:
            first = [self.num_embeddings] * (self.partitions - 1)
            return (*first, max(1, math.ceil(ids / math.prod(first))))
        smallest = balanced_radices(ids, self.partitions)
        budget = int((self.ratio or 0) * exact_rows)
        if sum(smallest) >= budget:
            return smallest
        first_rows = min(budget, ids)
        while True:  # the other partitions grow as the first shrinks, so every step down is needed
            radices = (first_rows, *balanced_radices(math.ceil(ids / first_rows), self.partitions - 1))
            if sum(radices) <= budget:
                return radices
            first_rows -= sum(radices) - budget


def _factor_init(init: Init, partitions: int, combine: Composition) -> Init:
    """Return the law of the parts of a vector that shall be as large as a row drawn from ``init``."""
    if combine == "concat" or init.scale == 0:
        return init
    if combine == "sum":
        return Init(init.scale / math.sqrt(partitions), init.law)
    spread = math.sqrt(3) if init.law == "uniform" else 1.0  # scale / standard deviation
    return Init(spread * (init.scale / spread) ** (1 / partitions), init.law)


class CompositionalTable(Table):
    """Address: the digits of the id. Decode: product, sum or concatenation of one row per digit.

    Args:
        slots: The table of each digit, least significant first.
        combine: How the rows become one vector.

    Shapes:
        ids: int64 ``[*S]``, each below the product of the tables' rows; vectors: float32 ``[*S, D]``.
    """

    def __init__(self, slots: Sequence[RowTable], combine: Composition) -> None:
        width = slots[0].embedding_dim
        super().__init__(slots, width * (len(slots) if combine == "concat" else 1))
        self.combine = combine
        self.concat = combine == "concat"
        self.additive = combine == "sum"
        self.radices = tuple(slot.num_embeddings for slot in slots)

    def address(self, ids: Tensor) -> Tensor:
        """Return the digits of each id."""
        return digits(ids, self.radices)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Compose the rows of the digits."""
        if self.combine == "concat":
            return torch.cat(list(rows), dim=-1)
        parts = torch.stack(list(rows))  # [P, *S, d]
        return parts.sum(0) if self.combine == "sum" else parts.prod(0)
