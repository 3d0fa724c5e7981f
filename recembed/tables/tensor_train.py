"""``tensor_train``: the table as a chain of three small cores.

Yin et al., TT-Rec: Tensor Train Compression for Deep Learning Recommendation Models, MLSys 2021.
Differs from the paper: the slices of a core are rows of the row store, so they train by its row rule; cores are
drawn so that vectors have the scale of plain rows; the rank may be solved from a ratio; no cache of frequent rows.
Axes: ``r`` rank, ``d1 d2 d3`` factors of the width ``D``, ``n1 n2 n3`` radices of the ids.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.rows import Init, RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.hashed_weights import hashed_weights
from recembed.tables.radix import balanced_radices, digits
from recembed.tables.spec import TableSpec

__all__ = ["TensorTrainConfig", "TensorTrainTable"]

_WIDEST_ROW = 16_384  # FBGEMM's CPU kernel fails at twice this width


class TensorTrainConfig(TableConfig):
    """Three cores per feature; bytes ``4 * r * (n1 * d1 + n2 * d2 * r + n3 * d3)``.

    ``n1 * n2 * n3`` is at least the number of ids, each about its cube root; ``d1 * d2 * d3 = D``, the middle
    one least. An id costs three lookups and ``D * r * (1 + r / d3)`` multiplications. First-order weights are a hashed
    table of as many rows as the cores of width 1 would have numbers.

    Attributes:
        rank: ``r``; cut at ``min(n1 * d1, n3 * d3)``, beyond which it adds nothing, and where a row of the middle
            core, ``r * d2 * r``, has 16,384 numbers.
        ratio: Bytes as a share of the exact table's (0.1 if ``rank`` is not given): the largest rank within it,
            at least 1.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: a feature has no vocabulary.

    >>> table = TensorTrainConfig(rank=4).build([TableSpec("item", 1000, 8)], seed=0)["item"]
    >>> [(slot.num_embeddings, slot.embedding_dim) for slot in table.slots]
    [(10, 8), (10, 32), (10, 8)]
    """

    kind: Literal["tensor_train"] = "tensor_train"
    sized_by: ClassVar[str] = "rank"
    rank: Annotated[int, Field(ge=1, le=128)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        ids = spec.known_ids("tensor_train")
        radices, factors = balanced_radices(ids, 3), _width_factors(spec.embedding_dim)
        rank = self._rank(radices, factors, ids * spec.embedding_dim)
        words = _words(radices, factors, rank)
        if ids <= self.exact_below or words >= ids * spec.embedding_dim:
            return FullTable.of(spec)
        if spec.linear:
            return hashed_weights(spec, words, seed)
        widths = (factors[0] * rank, rank * factors[1] * rank, rank * factors[2])
        init = _core_init(spec.init, rank)
        slots = [
            RowTable(f"{spec.table_name()}.core_{i}", rows, width, init)
            for i, (rows, width) in enumerate(zip(radices, widths, strict=True))
        ]
        return TensorTrainTable(slots, factors, rank)

    def _rank(self, radices: Sequence[int], factors: Sequence[int], exact_words: int) -> int:
        useful = min(radices[0] * factors[0], radices[2] * factors[2], math.isqrt(_WIDEST_ROW // factors[1]))
        if self.rank is not None:
            return min(self.rank, useful)
        budget = (0.1 if self.ratio is None else self.ratio) * exact_words
        ends, middle = radices[0] * factors[0] + radices[2] * factors[2], radices[1] * factors[1]
        solved = int((math.sqrt(ends**2 + 4 * middle * budget) - ends) / (2 * middle)) + 1  # may be one too large
        return max(1, min(solved if _words(radices, factors, solved) <= budget else solved - 1, useful))


def _words(radices: Sequence[int], factors: Sequence[int], rank: int) -> int:
    middle = radices[1] * factors[1] * rank
    return rank * (radices[0] * factors[0] + middle + radices[2] * factors[2])


def _width_factors(width: int) -> tuple[int, int, int]:
    """Return three factors of ``width``, as equal as they can be, the least in the middle (its core is the largest)."""
    triples = [
        sorted((a, b, width // a // b))
        for a in range(1, width + 1)
        if width % a == 0
        for b in range(1, width // a + 1)
        if width // a % b == 0
    ]
    least, between, most = min(triples, key=lambda t: (t[2], t[1]))
    return between, least, most


def _core_init(init: Init, rank: int) -> Init:
    """Return the law of the cores: a number of the vector is a sum of ``rank**2`` products of three."""
    spread = math.sqrt(3) if init.law == "uniform" else 1.0  # scale / standard deviation
    return Init(spread * (init.scale / spread / rank) ** (1 / 3), init.law)


class TensorTrainTable(Table):
    """Address: the three digits of the id. Decode: the product of one slice of each core.

    Args:
        slots: The cores; a row of them is a slice ``[d1, r]``, ``[r, d2, r]`` or ``[r, d3]``.
        factors: ``d1, d2, d3``.
        rank: ``r``.

    Shapes:
        ids: int64 ``[*S]``, each below ``n1 * n2 * n3``; vectors: float32 ``[*S, D]``.
    """

    def __init__(self, slots: Sequence[RowTable], factors: tuple[int, int, int], rank: int) -> None:
        super().__init__(slots, math.prod(factors))
        self.factors = factors
        self.rank = rank
        self.radices = tuple(slot.num_embeddings for slot in slots)

    def address(self, ids: Tensor) -> Tensor:
        """Return the digits of each id."""
        return digits(ids, self.radices)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Contract the three slices of each id."""
        (d1, d2, d3), r = self.factors, self.rank
        first = rows[0].view(-1, d1, r)  # [N, d1, r], N ids in all
        middle = rows[1].view(-1, r, d2 * r)  # [N, r, d2 * r]
        last = rows[2].view(-1, r, d3)  # [N, r, d3]
        chain = torch.bmm(first, middle).view(-1, d1 * d2, r)  # [N, d1 * d2, r]
        return torch.bmm(chain, last).view(*ids.shape, d1 * d2 * d3)
