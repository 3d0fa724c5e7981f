"""``int8`` and ``int16``: rows on a grid of whole numbers times a scale, served as the whole numbers.

The methods ``INT8`` and ``INT16`` of Zhang et al., Experimental Analysis of Large-scale Learnable Vector Storage
Compression, VLDB 2024: one global scale, stochastic rounding at each update (Gupta et al., ICML 2015), so that steps
below half a scale are not lost. Differs from the benchmark: rows are rounded when they are next read, which nobody can
tell from rounding after the update; evaluation rounds to nearest; the scale of ``int16`` is a 256th of that of
``int8``, so both reach as far; rounding only what is served is the default, and a scale per row an option.
Axes: ``b`` bits, ``U`` unique ids, ``n`` rows, ``D`` width of the vectors.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.hashing import mix64, salt
from recembed.rows import RowStore, RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.spec import TableSpec

__all__ = [
    "Int8Config",
    "Int16Config",
    "IntegerTable",
    "ServedIntegers",
    "nearest_codes",
    "random_codes",
]

_STEP = 0x9E3779B97F4A7C15 - 2**64  # SplitMix64: the streams of one seed are this far apart
_LEAST = 1e-30  # largest number that a row of zeros is taken to have


class _IntegerConfig(TableConfig):
    bits: ClassVar[int]
    scale: Annotated[float, Field(gt=0)] | Literal["row"]
    when: Literal["training", "after"] = "after"

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        rows = RowTable(spec.table_name(), spec.known_ids(self.kind), spec.embedding_dim, spec.init)
        scale = None if self.scale == "row" else self.scale
        if integer_bytes(rows, self.bits) + 4 * (rows.num_embeddings if scale is None else 1) >= rows.bytes:
            return FullTable.of(spec)
        return IntegerTable(rows, self.bits, scale, self.when, salt(rows.name, "rounding", seed))


class Int8Config(_IntegerConfig):
    """A byte per number; served bytes ``num_embeddings * embedding_dim + 4``, a quarter of the exact table's.

    Rows train as float32, so memory in training is that of the exact table. First-order weights are treated alike;
    with ``scale: row`` they stay exact, as a scale would be as large as the weight.

    Attributes:
        scale: Distance of the grid: one number for all rows, which may reach ``-128 * scale .. 127 * scale``; ``row``
            takes the largest number of each row divided by 127, at 4 bytes per row.
        when: Round only what is evaluated and served (``after``), or at every update in ``training`` too. DeepFM on
            Frappe lost 0.0000 of its AUC to the first and 0.0045 to the second, which at a scale of 0.01 is noise of
            the size of fresh rows; with a scale per row neither lost any (two seeds).

    Raises:
        ConfigError: a feature has no vocabulary.

    >>> table = Int8Config().build([TableSpec("item", 10, 4)], seed=0)["item"].eval()
    >>> table.decode([torch.tensor([[0.012, -0.016, 0.5, 9.0]])], torch.tensor([3])).tolist()
    [[0.009999999776482582, -0.019999999552965164, 0.5, 1.2699999809265137]]
    """

    bits: ClassVar[int] = 8
    kind: Literal["int8"] = "int8"
    scale: Annotated[float, Field(gt=0)] | Literal["row"] = 0.01


class Int16Config(_IntegerConfig):
    """Two bytes per number; served bytes ``2 * num_embeddings * embedding_dim + 4``, half of the exact table's.

    Otherwise as ``Int8Config``; numbers reach ``-32768 * scale .. 32767 * scale``.

    >>> table = Int16Config(scale="row").build([TableSpec("item", 10, 4)], seed=0)["item"]
    >>> table.served_rows, table.served_overhead_bytes
    ({'item': 80}, 40)
    """

    bits: ClassVar[int] = 16
    kind: Literal["int16"] = "int16"
    scale: Annotated[float, Field(gt=0)] | Literal["row"] = 0.01 / 256


def integer_bytes(rows: RowTable, bits: int) -> int:
    """Return the bytes of the codes of a table."""
    return rows.num_embeddings * rows.embedding_dim * bits // 8


def nearest_codes(rows: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return the nearest whole numbers, as floats: ``rows / scale`` rounded within ``-2**(b-1) .. 2**(b-1) - 1``.

    >>> nearest_codes(torch.tensor([0.26, -7.0]), torch.tensor(0.1), 8).tolist()
    [3.0, -70.0]
    """
    return (rows / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def random_codes(ratios: Tensor, bits: int, ids: Tensor, key: Tensor) -> Tensor:
    """Round each number up or down at random so that its expected value stays; the same for the same ids and key.

    Args:
        ratios: Numbers in units of the scale, float32 ``[U, D]``.
        bits: Width of the codes; numbers out of their range are moved to its end first.
        ids: Unique int64 ``[U]``, one noise for each.
        key: int64 ``[1]``, another one at every step.

    Returns:
        Whole numbers as float32 ``[U, D]``.

    >>> random_codes(torch.tensor([[2.0, -300.0]]), 8, torch.tensor([5]), torch.tensor([1])).tolist()
    [[2.0, -128.0]]
    """
    ratios = ratios.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    start = mix64(ids ^ mix64(key)).unsqueeze(-1)  # [U, 1]
    drawn = mix64(start + _STEP * torch.arange(1, ratios.shape[-1] + 1, device=ids.device)) >> 40  # 24 bits, signed
    lower = ratios.floor()
    return lower + ((drawn + 2**23).float() / 2**24 < ratios - lower)


class IntegerTable(Table):
    """Address: the id. Decode: the row; in evaluation rounded to the nearest point of its grid.

    Args:
        rows: The rows.
        bits: 8 or 16.
        scale: Distance of the grid; None takes the largest number of each row divided by ``2**(b-1) - 1``.
        when: Round the rows themselves in ``training``, or only what evaluation reads (``after``).
        seeded: Salt of the noise.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    def __init__(
        self, rows: RowTable, bits: int, scale: float | None, when: Literal["training", "after"], seeded: int
    ) -> None:
        super().__init__([rows], rows.embedding_dim)
        self.bits = bits
        self.moves_rows = when == "training"
        self.register_buffer("scale", None if scale is None else torch.tensor([scale]))
        if self.moves_rows:
            self.exact_rows = "it rounds them itself, to a grid of its own"
            self.register_buffer("noise", torch.tensor([seeded], dtype=torch.int64))

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of the codes."""
        return {slot.name: integer_bytes(slot, self.bits) for slot in self.slots}

    @property
    def served_overhead_bytes(self) -> int:
        """Planned bytes of the scales."""
        return 4 * (self.slots[0].num_embeddings if self._buffers["scale"] is None else 1)

    def address(self, ids: Tensor) -> Tensor:
        """Return ``ids`` with a slot axis."""
        return ids.unsqueeze(-1)

    def scale_of(self, rows: Tensor) -> Tensor:
        """Return the scale of each row, float32 ``[*S, 1]`` or ``[1]``."""
        if self._buffers["scale"] is not None:
            return self.get_buffer("scale")
        largest = rows.abs().amax(-1, keepdim=True).clamp(min=_LEAST)
        return torch.div(largest, 2 ** (self.bits - 1) - 1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the row of each id, rounded to nearest unless training."""
        if self.training:
            return rows[0]
        scale = self.scale_of(rows[0])
        return nearest_codes(rows[0], scale, self.bits) * scale

    def before_lookup(self, store: RowStore, ids: Tensor) -> None:
        """Put the rows about to be read on their grid, at random without bias."""
        name, unique = self.slots[0].name, torch.unique(ids)  # [U]
        noise = self.get_buffer("noise")
        noise += 1
        rows = store.read_rows(name, unique)  # [U, D]
        scale = self.scale_of(rows)
        store.write_rows(name, random_codes(rows / scale, self.bits, unique, noise) * scale, unique)

    @torch.no_grad()
    def settle(self, store: RowStore) -> dict[str, float]:
        """Round all rows to nearest; return the mean error and the share of numbers that lie at an end of the range."""
        rows = store.read_rows(self.slots[0].name)
        scale = self.scale_of(rows)
        codes = nearest_codes(rows, scale, self.bits)
        ends = (codes == -(2 ** (self.bits - 1))) | (codes == 2 ** (self.bits - 1) - 1)
        found = {"rounding_error": (codes * scale - rows).abs().mean(), "saturated": ends.float().mean()}
        store.write_rows(self.slots[0].name, codes * scale)
        return {name: value.item() for name, value in found.items()}

    @torch.no_grad()
    def compact(self, store: RowStore) -> Table:
        """Return the codes with their scales; its vectors are those of evaluation, at most half a scale from the rows."""
        rows = store.read_rows(self.slots[0].name)
        scale = self.scale_of(rows)
        return ServedIntegers(nearest_codes(rows, scale, self.bits), scale, self.bits)


class ServedIntegers(Table):
    """Vectors ``codes[id] * scale``; it cannot be trained.

    Args:
        codes: Whole numbers ``[n, D]``, held as int8 or int16.
        scale: float32 ``[n, 1]``, or ``[1]`` for all rows.
        bits: 8 or 16.

    Shapes:
        ids: int64 ``[*S]``; vectors: float32 ``[*S, D]``.

    >>> table = ServedIntegers(torch.tensor([[1, -2], [3, 4]]), torch.tensor([[0.5], [2.0]]), 8)
    >>> table.decode([], torch.tensor([1, 0])).tolist(), table.overhead_bytes
    ([[6.0, 8.0], [0.5, -1.0]], 12)
    """

    def __init__(self, codes: Tensor, scale: Tensor, bits: int) -> None:
        super().__init__([], codes.shape[1])
        self.register_buffer("codes", codes.to(torch.int8 if bits == 8 else torch.int16))
        self.register_buffer("scale", scale.detach().clone())

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        scale = self.get_buffer("scale")
        return self.get_buffer("codes")[ids].float() * (scale if scale.ndim == 1 else scale[ids])
