"""``alpt``: rows of whole numbers times a scale per row, and the scales are learned too (ALPT).

Li et al., Adaptive Low-Precision Training for Embeddings in Click-Through Rate Prediction, AAAI 2023. A row is rounded
at random by its scale after each update; the scale moves by the gradient that learned step size quantisation (LSQ,
Esser et al., ICLR 2020) takes through the rounding. Differs from the paper: the rounding of a row, and with it the
gradient of its scale, is that of the step that next reads the row, so a step is one pass and not two; the row store
holds the logarithm of the scale, so it stays positive and the row rule moves it by shares of itself.
Axes: ``b`` bits, ``U`` unique ids, ``n`` rows, ``D`` width of the vectors.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.hashing import salt
from recembed.rows import Init, RowStore, RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.integer import ServedIntegers, integer_bytes, nearest_codes, random_codes
from recembed.tables.spec import TableSpec

__all__ = ["AlptConfig", "AlptTable"]


class AlptConfig(TableConfig):
    """Served bytes ``num_embeddings * (embedding_dim * bits / 8 + 4)``: codes, and a float32 scale per row.

    Rows train as float32, with one number more each, so memory in training is a little above that of the exact table.
    First-order weights stay exact: a scale would be as large as the weight.

    Attributes:
        bits: 8 or 16.
        scale: The scale of every row at first; if None, ``2 * mean(|fresh row|) / sqrt(2**(b-1) - 1)``, the rule of LSQ.
            DeepFM on Frappe lost 0.0018 of its AUC by that rule (0.0044 there; one seed), 0.0011 at 0.002 (two seeds).
        scale_rate: Step size of the logarithm of a scale, as a share of the rows' step size (under an adaptive rule).

    Raises:
        ConfigError: a feature has no vocabulary.

    >>> table = AlptConfig(scale=0.01, scale_rate=1).build([TableSpec("item", 10, 4)], seed=0)["item"].eval()
    >>> row, scale = torch.tensor([[0.012, -0.016, 0.5, 9.0]]), torch.tensor([[math.log(2.0)]])
    >>> table.decode([row, scale], torch.tensor([3])).mul(100).round().tolist()
    [[2.0, -2.0, 50.0, 254.0]]
    """

    kind: Literal["alpt"] = "alpt"
    bits: Literal[8, 16] = 8
    scale: Annotated[float, Field(gt=0)] | None = None
    scale_rate: Annotated[float, Field(gt=0)] = 0.1

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        rows = RowTable(spec.table_name(), spec.known_ids("alpt"), spec.embedding_dim, spec.init)
        if integer_bytes(rows, self.bits) + 4 * rows.num_embeddings >= rows.bytes:
            return FullTable.of(spec)
        mean = spec.init.scale * (0.5 if spec.init.law == "uniform" else math.sqrt(2 / math.pi))
        scale = self.scale or max(2 * mean / math.sqrt(2 ** (self.bits - 1) - 1), 1e-6)
        return AlptTable(rows, self.bits, scale, self.scale_rate, salt(rows.name, "rounding", seed))


class AlptTable(Table):
    """Address: the id, for its row and for its scale. Decode: the row; in evaluation rounded to nearest.

    Args:
        rows: The rows.
        bits: 8 or 16.
        scale: The scale of every row at first.
        scale_rate: Step size of the logarithm of a scale, as a share of the rows' step size.
        seeded: Salt of the noise.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    moves_rows = True
    exact_rows = "it rounds them itself, to a grid of its own"

    def __init__(self, rows: RowTable, bits: int, scale: float, scale_rate: float, seeded: int) -> None:
        scales = RowTable(f"{rows.name}.scale", rows.num_embeddings, 1, Init(0.0, "uniform"))
        super().__init__([rows, scales], rows.embedding_dim)
        self.bits = bits
        self.scale_rate = scale_rate
        self.register_buffer("scale", torch.tensor([scale]))
        self.register_buffer("noise", torch.tensor([seeded], dtype=torch.int64))
        self._slopes: tuple[Tensor, Tensor] | None = None  # of the ids of this step: [U], [U, D]

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of codes and scales."""
        rows, scales = self.slots
        return {rows.name: integer_bytes(rows, self.bits), scales.name: scales.bytes}

    @property
    def served_overhead_bytes(self) -> int:
        """Nothing beside them."""
        return 0

    def address(self, ids: Tensor) -> Tensor:
        """Return the id twice."""
        return torch.stack([ids, ids], dim=-1)

    def scale_of(self, logarithms: Tensor) -> Tensor:
        """Return the scales of fetched or stored logarithms, of the same shape."""
        return self.get_buffer("scale") * (self.scale_rate * logarithms).exp()

    def before_lookup(self, store: RowStore, ids: Tensor) -> None:
        """Put the rows about to be read on their grid, and keep how each vector depends on its scale there."""
        name, unique = self.slots[0].name, torch.unique(ids)  # [U]
        scale = self.scale_of(store.read_rows(self.slots[1].name, unique))  # [U, 1]
        noise = self.get_buffer("noise")
        noise += 1
        ratios = store.read_rows(name, unique) / scale  # [U, D]
        codes = random_codes(ratios, self.bits, unique, noise)
        store.write_rows(name, codes * scale, unique)
        inside = ratios.abs() <= 2 ** (self.bits - 1) - 1
        self._slopes = unique, torch.where(inside, codes - ratios, codes)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the row of each id, rounded to nearest unless training."""
        scale = self.scale_of(rows[1])  # [*S, 1]
        if not self.training:
            return nearest_codes(rows[0], scale, self.bits) * scale
        _, count = self.processes.span(ids.numel())
        if self._slopes is None or count == 0:
            return rows[0] + 0.0 * rows[1]
        unique, slopes = self._slopes
        factor = (count * self.embedding_dim * (2 ** (self.bits - 1) - 1)) ** -0.5
        places = torch.searchsorted(unique, ids.contiguous()).clamp(max=len(unique) - 1)  # [*S]
        moved: Tensor = rows[0] + factor * slopes[places] * (scale - scale.detach())
        return moved

    @torch.no_grad()
    def settle(self, store: RowStore) -> dict[str, float]:
        """Round all rows to nearest; return the mean error, the mean scale and the share of numbers out of range."""
        rows = store.read_rows(self.slots[0].name)
        scale = self.scale_of(store.read_rows(self.slots[1].name))
        vectors = nearest_codes(rows, scale, self.bits) * scale
        outside = (rows.abs() > scale * (2 ** (self.bits - 1) - 0.5)).float().mean()
        found = {"rounding_error": (vectors - rows).abs().mean(), "scale": scale.mean(), "saturated": outside}
        store.write_rows(self.slots[0].name, vectors)
        return {name: value.item() for name, value in found.items()}

    @torch.no_grad()
    def compact(self, store: RowStore) -> Table:
        """Return the codes with their scales; its vectors are those of evaluation."""
        rows, scale = store.read_rows(self.slots[0].name), self.scale_of(store.read_rows(self.slots[1].name))
        return ServedIntegers(nearest_codes(rows, scale, self.bits), scale, self.bits)
