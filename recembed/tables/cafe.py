"""``cafe``: ids that carry most of the gradient own rows, found by a sketch while training; the others share by hash.

Zhang et al., CAFE: Towards Compact, Adaptive, and Fast Embedding for Large-scale Recommendation Models, SIGMOD 2024.
Differs from the authors' code: a promoted id takes its optimiser rows along; hot and shared rows are one row table, so
an id costs one lookup; the sketch reads the whole batch at once, in a fixed order, of any size; at the end of training
the scores are dropped and the hot keys served as a sorted array.
Axes: ``H`` hot rows, ``M`` shared rows, ``N`` ids of a step, ``U`` unique ones, ``D`` width.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recembed.hashing import MISSING_KEY, hash_rows, salt
from recembed.rows import RowStore, RowTable, ServedDtype, served_row_bytes
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.hashed import HashedTable
from recembed.tables.held_rows import HeldRows
from recembed.tables.sketch import SLOTS, HotSketch, sketch_bytes
from recembed.tables.sorted_keys import find_sorted
from recembed.tables.spec import TableSpec

__all__ = ["CafeConfig", "CafeTable", "ServedCafeTable"]


class CafeConfig(TableConfig):
    """Hot and shared rows per feature; ``ratio`` bounds rows and sketch together, so training memory as well.

    Tables read raw keys: no id map is served, and ids that no vocabulary knows may become hot. First-order weights are
    a hashed table, as is a feature whose budget has no room for a bucket of the sketch.

    Attributes:
        num_embeddings: Rows per feature, hot and shared.
        ratio: Bytes as a share of the exact table's (0.25 if ``num_embeddings`` is not given).
        hash_rate: Share of the bytes (of the rows, under ``num_embeddings``) that the shared rows take.
        slots_per_row: Slots of the sketch per hot row.
        threshold: Score that makes an id hot; the scores of a step sum to its number of ids.
        decay: Factor on the scores when their sum has reached ten thresholds per hot row.
        score: L2 norm of an id's gradient, or its frequency.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: ``ratio`` for a feature without a vocabulary.

    >>> table = CafeConfig(ratio=0.1).build([TableSpec("item", 5000, 16)], seed=0)["item"]
    >>> table.sketch.capacity, table.shared, table.slots[0].bytes + table.overhead_bytes <= 0.1 * 5000 * 16 * 4
    (159, 250, True)
    """

    kind: Literal["cafe"] = "cafe"
    sized_by: ClassVar[str] = "num_embeddings"
    num_embeddings: Annotated[int, Field(ge=3)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    hash_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    slots_per_row: Annotated[float, Field(ge=1, le=64)] = 2.0
    threshold: Annotated[float, Field(gt=0)] = 10.0
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    score: Literal["gradient", "frequency"] = "gradient"
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        width = spec.vector_dim or spec.embedding_dim  # the vectors decide, so that their weights read keys too
        hot, shared = self._plan(spec, width)
        taken = (1 + shared + hot) * 4 * width + (sketch_bytes(self._buckets(hot), hot) if hot else 0)
        exact = spec.num_embeddings
        if exact is not None and (exact <= self.exact_below or taken >= exact * width * 4):
            return FullTable.of(spec)
        if spec.linear or not hot:
            rows = max(2, taken // (4 * width))
            slot = RowTable(spec.table_name(), rows, spec.embedding_dim, spec.init)
            return HashedTable(slot, [salt(spec.name, 0, seed)], first=1, missing=[0], combine="concat")
        sketch = HotSketch(self._buckets(hot), hot, self.threshold, self.decay, seeded=salt(spec.name, "sketch", seed))
        slot = RowTable(spec.table_name(), 1 + shared + hot, spec.embedding_dim, spec.init)
        table = CafeTable(slot, sketch, salt(spec.name, 0, seed), by_gradient=self.score == "gradient")
        table.served_dtype = spec.served_dtype
        return table

    def _buckets(self, hot: int) -> int:
        return max(1, int(hot * self.slots_per_row / SLOTS))

    def _plan(self, spec: TableSpec, width: int) -> tuple[int, int]:
        """Return hot and shared rows."""
        row = 4 * width
        if self.num_embeddings is not None:
            hot = max(1, int((1 - self.hash_rate) * (self.num_embeddings - 1)))
            return hot, max(1, self.num_embeddings - 1 - hot)
        budget = (0.25 if self.ratio is None else self.ratio) * spec.known_ids("cafe") * row - row - 8
        hot = int(((1 - self.hash_rate) * budget - 24) / (row + 16 * self.slots_per_row + 4))
        if hot * self.slots_per_row < SLOTS:
            return 0, max(1, int((budget + 8) / row))
        return hot, max(1, int((budget - hot * row - sketch_bytes(self._buckets(hot), hot)) / row))


class CafeTable(Table):
    """Address: the hot row of the key if it has one, else a hash into the shared rows. Row 0: missing value.

    The sketch counts in the backward pass (or before the lookup, by frequency). A key whose score has reached the
    threshold gets its own row at the next training step that reads it: a copy of its shared row, weights and optimiser
    states, so that step's vectors are what they were.

    Args:
        rows: The rows: one for missing values, then the shared, then the hot ones.
        sketch: Scores and hot rows.
        seeded: Salt of the hash into the shared rows.
        by_gradient: Score by gradient norm; else by frequency.

    Shapes:
        ids: int64 keys ``[*S]``; vectors: float32 ``[*S, D]``.
    """

    reads: Literal["ids", "keys"] = "keys"
    moves_rows = True

    def __init__(self, rows: RowTable, sketch: HotSketch, seeded: int, *, by_gradient: bool) -> None:
        super().__init__([rows], rows.embedding_dim)
        self.sketch = sketch
        self.shared = rows.num_embeddings - 1 - sketch.capacity
        self.by_gradient = by_gradient
        self.register_buffer("salts", torch.tensor([seeded], dtype=torch.int64))

    def address(self, ids: Tensor) -> Tensor:
        """Return the one row of each key."""
        hot = self.sketch.hot_rows(ids)
        rows = torch.where(hot < 0, self.shared_rows(ids), hot + (1 + self.shared))
        return rows.unsqueeze(-1)

    def shared_rows(self, ids: Tensor) -> Tensor:
        """Return the row each key reads while it is cold, int64 ``[*S]``."""
        return _shared_rows(ids, self.get_buffer("salts"), self.shared)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the one row of each key; in training its gradient is measured on the way back."""
        vectors = rows[0]
        if self.by_gradient and self.training and vectors.requires_grad:
            vectors.register_hook(partial(self._count_gradient, ids))  # type: ignore[no-untyped-call]
        return vectors

    @torch.no_grad()
    def _count_gradient(self, ids: Tensor, gradient: Tensor) -> None:
        keys = self.processes.gather(ids.flatten())
        gradient = self.processes.gather(gradient.flatten(0, -2) * self.processes.share)
        known = keys != MISSING_KEY
        unique, place = torch.unique(keys[known], return_inverse=True)  # [U], [N]
        summed = gradient.new_zeros(len(unique), self.embedding_dim)
        norms = summed.index_add_(0, place, gradient[known]).norm(dim=1)
        norms = torch.where(norms.isfinite(), norms, 0)
        total = norms.sum()
        self.sketch.add(unique, norms * (len(place) / torch.where(total > 0, total, 1)))

    def before_lookup(self, store: RowStore, ids: Tensor) -> None:
        """Decay, demote, and copy the shared rows of the keys of this step that have become hot."""
        keys, counts = torch.unique(ids[ids != MISSING_KEY], return_counts=True)
        self.sketch.decay_scores()
        promoted, hot = self.sketch.promote(keys)
        name, source, target = self.slots[0].name, self.shared_rows(promoted), hot + (1 + self.shared)
        for state in (None, *store.states):
            store.write_rows(name, store.read_rows(name, source, state), target, state)
        if not self.by_gradient:
            self.sketch.add(keys, counts.float())

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of the rows as served."""
        return {slot.name: served_row_bytes(slot, self.served_dtype) for slot in self.slots}

    @property
    def served_overhead_bytes(self) -> int:
        """Bytes of the sorted hot keys and the salt."""
        return 8 * self.sketch.capacity + 8

    def compact(self, store: RowStore) -> Table:
        """Return shared rows, hot rows and sorted hot keys, without scores and candidates."""
        keys, hot = self.sketch.hot()
        rows = store.rows(self.slots[0].name)
        unused = self.sketch.capacity - len(keys)
        shared, own = rows[: 1 + self.shared], rows[1 + self.shared :][hot]
        keys = F.pad(keys, (unused, 0), value=MISSING_KEY)  # the least key: they stay sorted
        own = F.pad(own, (0, 0, unused, 0))
        return ServedCafeTable(torch.cat([shared, own]), keys, self.get_buffer("salts"), self.served_dtype)


class ServedCafeTable(Table):
    """A trained ``CafeTable`` as it is served; it cannot be trained.

    Args:
        rows: float32 ``[1 + M + H, D]``; missing, shared, hot rows in the order of ``hot_keys``.
        hot_keys: int64 ``[H]``, rising.
        salts: int64 ``[1]``.
        dtype: Type of the rows.
    """

    reads: Literal["ids", "keys"] = "keys"

    def __init__(self, rows: Tensor, hot_keys: Tensor, salts: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__([], rows.shape[1])
        self.shared = len(rows) - len(hot_keys) - 1
        self.rows = HeldRows(rows, dtype)
        self.register_buffer("hot_keys", hot_keys.clone())
        self.register_buffer("salts", salts.clone())

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        place, hot = find_sorted(self.get_buffer("hot_keys"), ids)
        shared = _shared_rows(ids, self.get_buffer("salts"), self.shared)
        hot = hot & (ids != MISSING_KEY)
        vectors: Tensor = self.rows(torch.where(hot, place + (1 + self.shared), shared))
        return vectors


def _shared_rows(keys: Tensor, salts: Tensor, shared: int) -> Tensor:
    return torch.where(keys == MISSING_KEY, 0, hash_rows(keys, salts, shared) + 1)
