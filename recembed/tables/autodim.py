"""``autodim``: one of several widths per feature, chosen by weights that learn on validation rows.

Zhao et al., AutoDim: Field-aware Embedding Dimension Search in Recommender Systems, WWW 2021. Rows of all candidates
are shared: candidate ``w`` reads the first ``w`` numbers of one ``D`` wide row (the paper's weight-sharing variant).
Differs from the paper: the widest candidate needs no projection; after the norm all candidates share one learned
scale, which starts at that of plain rows (paper: scale 1); the norm divides by the root mean square and leaves the mean
(paper: batch norm); it belongs to the search alone, a settled table is ``row[:w] @ projection``.
Axes: ``K`` candidates, ``w`` width of one, ``D`` width of the vectors, ``N`` ids of a lookup.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.hashing import hash_rows, salt
from recembed.rows import RowStore, RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.hashed_weights import weights_of_one
from recembed.tables.held_rows import held_bytes
from recembed.tables.parameters import uniform_parameter
from recembed.tables.projected import ProjectedRows
from recembed.tables.served import ServedTable
from recembed.tables.spec import TableSpec

__all__ = ["AutoDimConfig", "AutoDimTable"]

_MOMENTUM = 0.1
_EPS = 1e-6
_STEPS = 2**20  # of the uniform numbers behind the Gumbel noise


class AutoDimConfig(TableConfig):
    """A supernet of widths; served bytes ``4 * (n w + (w D where w < D))`` of the chosen width ``w``.

    With ``ratio`` the features share that part of their exact tables' bytes: each may be as wide as one common share
    of its own bytes allows, and at least as wide as its narrowest candidate. Training holds all rows ``D`` wide and a
    projection per candidate. First-order weights are one number wide already: they keep
    exact tables, or under a ``ratio`` below a quarter hashed ones of four times that share.

    Attributes:
        widths: Candidates; if None, the powers of two from 2 on and ``embedding_dim``. ``embedding_dim`` is one always.
        ratio: Served bytes of all features of this method as a share of their exact tables'.
        cooling: How fast the temperature of the Gumbel softmax falls, ``max(0.01, 1 - cooling * lookups)``.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: a width is not below ``embedding_dim``; no widths meet ``ratio``; a feature has no vocabulary.

    >>> table = AutoDimConfig().build([TableSpec("item", 1000, 16)], seed=0)["item"]
    >>> table.widths, sum(table.served_rows.values())
    ((2, 4, 8, 16), 64000)
    """

    kind: Literal["autodim"] = "autodim"
    recipe: ClassVar[tuple[dict[str, Any], ...]] = (
        {"name": "search", "do": "train", "search": True},
        {"name": "settle", "do": "settle"},
        {"name": "retrain", "do": "train", "start": "initial"},
    )
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    cooling: Annotated[float, Field(ge=0, lt=1)] = 5e-5
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Give each feature its candidates and the widest that may be served, then build one table per spec."""
        if specs[0].linear:
            return {spec.name: weights_of_one(spec, self.ratio, self.exact_below, seed) for spec in specs}
        searched = [s for s in specs if s.known_ids(self.kind) > self.exact_below]
        tables: dict[str, Table] = {spec.name: FullTable.of(spec) for spec in specs}
        for spec, widest in zip(searched, self._widest(searched, list(specs)), strict=True):
            if len(self._candidates(spec)) > 1:
                tables[spec.name] = AutoDimTable(
                    spec, self._candidates(spec), widest=widest, cooling=self.cooling, seed=seed
                )
        return tables

    def _candidates(self, spec: TableSpec) -> tuple[int, ...]:
        """Return the widths of a feature, rising; those that a projection would not shrink are left out."""
        full, ids = spec.embedding_dim, spec.known_ids(self.kind)
        widths = self.widths if self.widths is not None else tuple(1 << i for i in range(1, full.bit_length()))
        for width in self.widths or ():
            if width > full:
                raise ConfigError(
                    f"table 'autodim': widths holds {width}: expected at most embedding_dim = {full}; leave it out"
                )
        return (*sorted({w for w in widths if w < full and _words(ids, w, full) < ids * full}), full)

    def _widest(self, searched: Sequence[TableSpec], specs: Sequence[TableSpec]) -> list[int]:
        """Return the widest candidate that each feature may be served at."""
        candidates = [self._candidates(spec) for spec in searched]
        if self.ratio is None or not searched:
            return [widths[-1] for widths in candidates]
        sizes = [
            [_words(spec.known_ids(self.kind), width, spec.embedding_dim) for width in widths]
            for spec, widths in zip(searched, candidates, strict=True)
        ]
        exact = sum(spec.known_ids(self.kind) * spec.embedding_dim for spec in specs)
        small = exact - sum(own[-1] for own in sizes)
        for share in sorted({size / own[-1] for own in sizes for size in own} | {0.0}, reverse=True):
            places = [max([i for i, size in enumerate(own) if size <= share * own[-1]], default=0) for own in sizes]
            needed = small + sum(own[place] for own, place in zip(sizes, places, strict=True))
            if needed <= self.ratio * exact:
                return [widths[place] for widths, place in zip(candidates, places, strict=True)]
        raise ConfigError(
            f"table 'autodim': ratio = {self.ratio}: the narrowest widths take {needed / exact:.4f} of the exact tables' "
            "bytes; raise ratio to that, name narrower widths, or lower exact_below so that fewer features are exact"
        )


def _words(ids: int, width: int, full: int) -> int:
    """Return the numbers served: rows, and a projection where they are narrower than the vectors."""
    return ids * width + (width * full if width < full else 0)


class AutoDimTable(Table):
    """Address: the id itself. Decode: the candidates' vectors weighted; once settled, the chosen one's alone.

    In the search, candidate ``w`` gives ``scale * norm(row[:w] @ projection_w)``. The norm divides each number by its
    root mean square over the ids of a lookup (in evaluation a running one), so that no candidate wins by its size.
    Their weights are a Gumbel softmax, drawn once a lookup; a softmax in evaluation.

    Args:
        spec: The feature.
        widths: Candidates, rising; the last is ``D``.
        widest: Widest candidate that ``settle`` may choose.
        cooling: Fall of the temperature per lookup.
        seed: Fresh projections depend on it.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    def __init__(self, spec: TableSpec, widths: tuple[int, ...], *, widest: int, cooling: float, seed: int) -> None:
        full = spec.embedding_dim
        super().__init__([RowTable(spec.table_name(), spec.known_ids("autodim"), full, spec.init)], full)
        self.name, self.widths, self.widest, self.cooling = spec.name, widths, widest, cooling
        self.served_dtype = spec.served_dtype
        std = spec.init.scale / (3**0.5 if spec.init.law == "uniform" else 1.0)
        self.projections = nn.ParameterList(
            uniform_parameter((width, full), width**-0.5, spec.name, width, seed) for width in widths[:-1]
        )
        self.scale = nn.Parameter(torch.full((1,), std))
        self.preferences = nn.Parameter(torch.zeros(len(widths)))
        self.register_buffer("square", torch.full((len(widths), full), std**2))
        self.register_buffer("lookups", torch.zeros((), dtype=torch.int64))
        self.register_buffer("salt", torch.tensor(salt(spec.name, "autodim", seed)))
        self.register_buffer("chosen", torch.zeros(len(widths)))  # one 1 once settled

    def search_parameters(self) -> list[nn.Parameter]:
        """Return the preferences, one number per candidate."""
        return [self.preferences]

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of the rows at the widest candidate that may be chosen."""
        return {self.slots[0].name: held_bytes(self.slots[0].num_embeddings, self.widest, self.served_dtype)}

    @property
    def served_overhead_bytes(self) -> int:
        """Planned bytes of the projection served."""
        return 4 * self.widest * self.embedding_dim if self.widest < self.embedding_dim else 0

    def address(self, ids: Tensor) -> Tensor:
        """Return ``ids`` with a slot axis."""
        return ids.unsqueeze(-1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Weight the candidates' vectors."""
        chosen, row = self.get_buffer("chosen"), rows[0]
        if self.training and not bool(chosen.any()):
            return self._search(row)
        settled = chosen.sum() > 0
        norms = torch.where(settled, 1.0, self.scale * (self.get_buffer("square") + _EPS).rsqrt())  # [K, D]
        weights = torch.where(settled, chosen, self.preferences.softmax(0))  # [K]
        return row @ (self._matrices() * (weights.unsqueeze(1) * norms).unsqueeze(1)).sum(0)

    def _matrices(self) -> Tensor:
        """Return the candidates' projections, ``[K, D, D]``: zero below row ``w``, the identity for the widest."""
        full = self.embedding_dim
        padded = [F.pad(projection, (0, 0, 0, full - len(projection))) for projection in self.projections]
        return torch.stack([*padded, torch.eye(full, device=self.preferences.device)])

    def _search(self, row: Tensor) -> Tensor:
        full, lookups = self.embedding_dim, self.get_buffer("lookups")
        flat = row.flatten(0, -2)  # [N, D]
        _, count = self.processes.span(len(flat))
        if count == 0:
            return row
        vectors = torch.stack([flat[:, :w] @ p for w, p in zip(self.widths, self.projections, strict=False)] + [flat])
        square = self.processes.sum(vectors.square().sum(1)) / count  # [K, D]
        with torch.no_grad():
            self.get_buffer("square").lerp_(square, _MOMENTUM)
            temperature = (1 - self.cooling * lookups).clamp(min=0.01)
            noise = self._gumbel()  # [K]
            lookups += 1
        weights = ((self.preferences.log_softmax(0) + noise) / temperature).softmax(0)  # [K]
        normed = vectors * (square + _EPS).rsqrt().unsqueeze(1)  # [K, N, D]
        return (self.scale * torch.einsum("k,knd->nd", weights, normed)).view(*row.shape[:-1], full)

    def _gumbel(self) -> Tensor:
        """Return Gumbel noise ``[K]`` of this lookup; it depends on its number alone, so a resumed run draws the same."""
        count = len(self.widths)
        keys = self.get_buffer("lookups") * count + torch.arange(count, device=self.preferences.device)
        uniform = (hash_rows(keys, self.get_buffer("salt"), _STEPS).float() + 0.5) / _STEPS
        return -uniform.log().neg().log()

    @torch.no_grad()
    def settle(self, store: RowStore) -> dict[str, float]:
        """Choose the preferred candidate of those that may be served."""
        allowed = sum(width <= self.widest for width in self.widths)
        best = int(self.preferences[:allowed].argmax())
        share = float(self.preferences.softmax(0)[best])
        self.get_buffer("chosen").zero_()[best] = 1
        return {"width": float(self.widths[best]), "preference": share}

    @torch.no_grad()
    def compact(self, store: RowStore) -> Table:
        """Return rows of the chosen width, and their projection.

        Raises:
            ConfigError: no width is chosen yet.
        """
        chosen = self.get_buffer("chosen")
        if not bool(chosen.any()):
            raise ConfigError(
                f"feature {self.name!r}: autodim has chosen no width yet; run a stage with do: settle after the search"
            )
        best = int(chosen.argmax())
        rows = store.rows(self.slots[0].name)[:, : self.widths[best]]
        if best == len(self.widths) - 1:
            return ServedTable(rows, self.embedding_dim, dtype=self.served_dtype)
        return ProjectedRows(rows, self.projections[best], self.served_dtype)
