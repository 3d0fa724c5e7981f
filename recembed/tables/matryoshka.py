"""``matryoshka``: vectors whose prefixes serve too; a wrapper around any other method.

Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022. Differs from the paper: one loss a step instead of
the sum over all widths; each vector keeps a prefix of a width drawn uniformly and is zero after it (OptEmbed trains its
supernet so), hence any model can take it. With one nested feature the expected loss is the mean of the nested losses.
With several it is the mean over all combinations of their widths, so each may be served at a width of its own.
Axes: ``m`` a nested width, ``D`` width of the vectors, ``P`` slots.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.hashing import hash_rows, mix64, salt
from recembed.rows import RowStore
from recembed.rows.processes import Processes
from recembed.tables.base import Table, TableConfig
from recembed.tables.cut import CutRows, CutVectors
from recembed.tables.full import FullConfig, FullTable
from recembed.tables.hashed_weights import weights_of_one
from recembed.tables.held_rows import held_bytes
from recembed.tables.served import ServedTable
from recembed.tables.spec import TableSpec

__all__ = ["MatryoshkaConfig", "MatryoshkaTable"]


def _parse_inner(raw: Any) -> TableConfig:
    from recembed.tables import parse_table  # the dictionary of kinds lists this file too

    config = parse_table(raw)
    if isinstance(config, MatryoshkaConfig):
        raise ConfigError("table 'matryoshka' holds another one; name all widths in one of them")
    return config


class _InnerRecipe:
    """Of the class: no stages; of a record: those of the table inside."""

    def __get__(self, record: "MatryoshkaConfig | None", owner: type) -> tuple[dict[str, Any], ...]:
        return () if record is None else record.table.recipe


class MatryoshkaConfig(TableConfig):
    """Nested widths over the vectors of another method, which trains as it does by itself.

    Bytes are those of ``table``; served at ``m`` numbers, its rows shrink to ``m / D`` where a vector is one row of the
    feature's own, or a sum of them, and stay whole elsewhere (shared rows, rows side by side, networks). Tables that
    ``table`` keeps exact are nested too. First-order weights have nothing to nest: ``table`` makes them as ever (exact
    ones of over 100 ids are hashed under a ``ratio`` below a quarter).

    Attributes:
        table: The method inside: one word, or a mapping with ``kind``.
        widths: Nested widths, the last of them ``embedding_dim``; if None, ``embedding_dim``, its half and its quarter,
            and as many further halves as ``ratio`` needs.
        serve_width: The width that evaluation and serving use; if None, all.
        ratio: Instead of ``serve_width``: served bytes as a share of exact tables'; the widest ``m`` within it. It
            belongs to a ``table`` without a ratio of its own.

    Raises:
        ConfigError: the widths do not end in ``embedding_dim``, or ``serve_width`` is not one of them.

    >>> tables = MatryoshkaConfig(widths=(4, 8), serve_width=4).build([TableSpec("item", 100, 8)], seed=0)
    >>> tables["item"].served_rows
    {'item': 1600}
    """

    kind: Literal["matryoshka"] = "matryoshka"
    sized_by: ClassVar[str] = "serve_width"
    recipe: ClassVar[Any] = _InnerRecipe()
    table: Annotated[SerializeAsAny[TableConfig], BeforeValidator(_parse_inner)] = FullConfig()
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None
    serve_width: Annotated[int, Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "MatryoshkaConfig":
        if self.ratio is not None and self._sized:
            raise ValueError(f"ratio belongs to table {self.table.kind!r}, which has one: set table.ratio")
        return self

    @property
    def _sized(self) -> bool:
        return "ratio" in type(self.table).model_fields

    def resized(self, ratio: float) -> Self:
        """Return these settings with ``table`` resized, or where it has no ratio, with another width served."""
        if self._sized:
            return self.model_copy(update={"table": self.table.resized(ratio)})
        return self if self.serve_width is not None else self.model_copy(update={"ratio": ratio})

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build the tables inside, then wrap each."""
        inner = self.table.build(specs, seed)
        if specs[0].linear:
            return inner if self.ratio is None else {s.name: self._weights(s, inner[s.name], seed) for s in specs}
        users = [name for table in inner.values() for name in {slot.name for slot in table.slots}]
        tables: dict[str, Table] = {}
        for name, table in inner.items():
            own_rows = all(users.count(slot.name) == 1 for slot in table.slots)
            tables[name] = self._wrap(name, table, seed, own_rows=own_rows)
            tables[name].served_dtype = specs[0].served_dtype
        return tables

    def _weights(self, spec: TableSpec, inner: Table, seed: int) -> Table:
        return weights_of_one(spec, self.ratio, 100, seed) if isinstance(inner, FullTable) else inner

    def _wrap(self, name: str, inner: Table, seed: int, *, own_rows: bool) -> Table:
        full = inner.embedding_dim
        widths = tuple(sorted(set(self.widths or _halves(full, 0.25 if self.ratio is None else self.ratio))))
        if widths[-1] != full:
            raise ConfigError(
                f"feature {name!r}: table 'matryoshka' has widths {list(widths)}; the last must be the "
                f"{full} numbers of its vectors (embedding_dim)"
            )
        stays = type(inner).compact is Table.compact
        cuts = stays and own_rows and inner.additive and {slot.embedding_dim for slot in inner.slots} == {full}
        serve = self.serve_width or (full if self.ratio is None else _affordable(name, widths, self.ratio, cuts=cuts))
        if serve not in widths:
            raise ConfigError(f"feature {name!r}: serve_width = {serve} is not among the widths {list(widths)}")
        seeded = salt(name, "matryoshka", seed)
        return MatryoshkaTable(inner, widths, serve_width=serve, cuts=cuts, seeded=seeded)


def _halves(full: int, share: float) -> list[int]:
    """Return the full width, its half, its quarter and so on until one is within ``share``."""
    widths = [full]
    while widths[-1] > min(share, 0.25) * full and widths[-1] > 1:
        widths.append(widths[-1] // 2)
    return widths


def _affordable(name: str, widths: tuple[int, ...], ratio: float, *, cuts: bool) -> int:
    """Return the widest nested width within ``ratio`` of the whole vectors' bytes."""
    smallest = widths[0] if cuts else widths[-1]
    if smallest > ratio * widths[-1]:
        raise ConfigError(
            f"feature {name!r}: ratio = {ratio}: table 'matryoshka' serves at least {smallest / widths[-1]:.4f} of its "
            "bytes; raise ratio to that, or name a narrower width"
        )
    return max(width for width in widths if width <= ratio * widths[-1])


class MatryoshkaTable(Table):
    """Another table, of whose vectors training keeps random prefixes and evaluation one.

    Args:
        inner: The table; its addresses, rows, searches and settling are used as they are.
        widths: Nested widths, rising, the last of them ``D``.
        serve_width: Numbers kept in evaluation.
        cuts: A vector is a sum of rows that no other table reads, so that the rows can be served narrow.
        seeded: Salt of the draws.

    Shapes:
        ids: int64 ``[*S]``; vectors: float32 ``[*S, D]``, zero from some width on.
    """

    def __init__(self, inner: Table, widths: tuple[int, ...], *, serve_width: int, cuts: bool, seeded: int) -> None:
        super().__init__(inner.slots, inner.embedding_dim)
        self.inner = inner
        self.reads = inner.reads
        self.moves_rows, self.exact_rows = inner.moves_rows, inner.exact_rows
        self.widths = widths
        self.serve_width = serve_width
        self.cuts = cuts
        self.register_buffer("limits", torch.tensor(widths), persistent=False)
        self.register_buffer("salt", torch.tensor(seeded, dtype=torch.int64))
        self.register_buffer("lookups", torch.zeros((), dtype=torch.int64))  # so that a resumed run draws the same

    def address(self, ids: Tensor) -> Tensor:
        """Return the addresses of the table inside."""
        return self.inner.address(ids)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors of the table inside up to a width; in training drawn for each of them."""
        vectors = self.inner.decode(rows, ids)  # [*S, D]
        if not self.training:
            return F.pad(vectors[..., : self.serve_width], (0, self.embedding_dim - self.serve_width))
        limits = self.get_buffer("limits")[self._draw(ids)].unsqueeze(-1)  # [*S, 1]
        return torch.where(torch.arange(self.embedding_dim, device=vectors.device) < limits, vectors, 0.0)

    def _draw(self, ids: Tensor) -> Tensor:
        """Return a place among the widths for each id, int64 ``[*S]``, by the number of the lookup and its place in it."""
        lookups = self.get_buffer("lookups")
        first, _ = self.processes.span(ids.numel())
        places = first + torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        drawn = hash_rows(mix64(lookups) ^ places, self.get_buffer("salt"), len(self.widths))
        lookups += 1
        return drawn

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of the rows, cut where they can be."""
        if type(self.inner).compact is not Table.compact:
            return self.inner.served_rows
        return {
            slot.name: held_bytes(
                slot.num_embeddings, self.serve_width if self.cuts else slot.embedding_dim, self.served_dtype
            )
            for slot in self.slots
        }

    @property
    def served_overhead_bytes(self) -> int:
        """Planned bytes that the table inside serves beside its rows."""
        return self.inner.served_overhead_bytes

    def join(self, processes: Processes) -> None:
        """Let the table inside know them too."""
        super().join(processes)
        self.inner.join(processes)

    def before_lookup(self, store: RowStore, ids: Tensor) -> None:
        """Let the table inside move its rows."""
        self.inner.before_lookup(store, ids)

    def take_losses(self) -> list[Tensor]:
        """Return what the table inside added to the loss."""
        return self.inner.take_losses()

    def search_parameters(self) -> list[nn.Parameter]:
        """Return those of the table inside."""
        return self.inner.search_parameters()

    def width_choices(self) -> tuple[int, ...]:
        """Return those of the table inside."""
        return self.inner.width_choices()

    def choose_width(self, width: int) -> None:
        """Let the table inside take ``width``."""
        self.inner.choose_width(width)

    @property
    def settles(self) -> bool:
        """Whether the table inside has anything to fix."""
        return self.inner.settles

    def settle(self, store: RowStore) -> dict[str, float]:
        """Let the table inside fix what training found."""
        return self.inner.settle(store)

    @torch.no_grad()
    def compact(self, store: RowStore) -> Table:
        """Return the compact form of the table inside, cut to ``serve_width``."""
        served = self.inner.compact(store)
        if self.serve_width == self.embedding_dim:
            return served
        if type(served) is ServedTable:
            remap = served._buffers["remap"]
            rows = served.rows.numbers()[:, : self.serve_width]
            return ServedTable(rows, self.embedding_dim, remap, self.served_dtype)
        if self.cuts and served is self.inner:
            if isinstance(served, FullTable):
                rows = store.rows(served.slots[0].name)[:, : self.serve_width]
                return ServedTable(rows, self.embedding_dim, dtype=self.served_dtype)
            return CutRows(served, store, self.serve_width, self.served_dtype)
        return CutVectors(served, self.serve_width)
