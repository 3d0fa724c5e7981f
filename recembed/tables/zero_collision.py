"""``zero_collision``: ids get rows of their own as they come, and lose them to ids that deserve them more.

The managed collision of TorchRec (``torchrec/modules/mc_modules.py``, ``MCHManagedCollisionModule``), with its names.
Its modules are not wrapped: they own the lookup of an embedding collection, so their features could not share the one
lookup of a row store; they leave the reset of evicted rows and of their optimiser states to the collection; and their
history grows to the size of the first batch times the interval, outside of the checkpoint. Differs from them: known ids
are counted where they lie and only unknown ones in the history; missing values have a row of their own. Which ids stay
is the same but for ties, as a test beside TorchRec's module shows.
Axes: ``Z`` rows of known ids, ``N`` ids of a step, ``D`` width.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from recembed.hashing import MISSING_KEY, mix64, salt
from recembed.rows import RowStore, RowTable, ServedDtype, served_row_bytes
from recembed.tables.base import Table, TableConfig
from recembed.tables.eviction import AdmissionFilter, EvictionPolicy
from recembed.tables.fresh_rows import fresh_rows
from recembed.tables.full import FullTable
from recembed.tables.hashed import HashedTable
from recembed.tables.held_rows import HeldRows
from recembed.tables.key_rows import Admission, KeyRows
from recembed.tables.sorted_keys import find_sorted
from recembed.tables.spec import TableSpec

__all__ = ["ServedZeroCollisionTable", "ZeroCollisionConfig", "ZeroCollisionTable"]


class ZeroCollisionConfig(TableConfig):
    """So many rows per feature, given to raw keys while training; served bytes ``(Z + 2) * 4 * D + 8 * Z``.

    First-order weights are a hashed table. Under ``ratio`` a feature that would not shrink keeps its exact table; under
    ``zch_size`` every feature of more than ``exact_below`` ids is managed, however large its vocabulary is today.

    Attributes:
        zch_size: Rows per feature, ``Z + 1``: the last one is the fallback of all unknown ids.
        ratio: Served bytes as a share of the exact table's (0.25 if ``zch_size`` is not given).
        eviction_interval: Training steps between two admissions; ids keep their rows in between.
        eviction_policy: ``lfu`` (count), ``lru`` (last access) or ``distance_lfu`` (count by distance).
        decay_exponent: Power of the distance in ``lru`` and ``distance_lfu``.
        admission: Filter of new ids: ``count``, ``average``, ``dynamic`` or ``probabilistic``.
        admission_threshold: Occurrences, multiple of the mean, or probability; 2, 10 and 0.01 by default.
        input_history_buffer_size: Occurrences of unknown ids that are remembered; the latest ones if there are more.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: ``ratio`` for a feature without a vocabulary.

    >>> table = ZeroCollisionConfig(zch_size=5).build([TableSpec("item", None, 8)], seed=0)["item"]
    >>> table.address(torch.tensor([17, MISSING_KEY])).flatten().tolist()
    [4, 5]
    """

    kind: Literal["zero_collision"] = "zero_collision"
    sized_by: ClassVar[str] = "zch_size"
    zch_size: Annotated[int, Field(ge=2)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    eviction_interval: Annotated[int, Field(ge=1)] = 100
    eviction_policy: EvictionPolicy = "distance_lfu"
    decay_exponent: Annotated[float, Field(gt=0)] = 1.0
    admission: AdmissionFilter = "count"
    admission_threshold: Annotated[float, Field(gt=0)] | None = None
    input_history_buffer_size: Annotated[int, Field(ge=1)] = 2**16
    exact_below: Annotated[int, Field(ge=0)] = 100

    @model_validator(mode="after")
    def _check(self) -> "ZeroCollisionConfig":
        if self.admission == "probabilistic" and self._threshold > 1:
            raise ValueError(f"admission_threshold = {self._threshold}: expected a probability, at most 1")
        return self

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        known = self._known(spec)
        if known is None:
            return FullTable.of(spec)
        seeded = salt(spec.name, 0, seed)
        slot = RowTable(spec.table_name(), known + 2, spec.embedding_dim, spec.init)
        if spec.linear:
            return HashedTable(slot, [seeded], first=1, missing=[0], combine="concat")
        admission = Admission(
            self.eviction_policy, self.decay_exponent, self.admission, self._threshold, self.input_history_buffer_size
        )
        table = ZeroCollisionTable(slot, KeyRows(known, admission, seeded), self.eviction_interval)
        table.served_dtype = spec.served_dtype
        return table

    @property
    def _threshold(self) -> float:
        defaults = {"count": 2.0, "average": 1.0, "dynamic": 10.0, "probabilistic": 0.01}
        return defaults[self.admission] if self.admission_threshold is None else self.admission_threshold

    def _known(self, spec: TableSpec) -> int | None:
        """Return ``Z``, or None for an exact table; the vectors decide, so that their weights read keys too."""
        width, ids = spec.vector_dim or spec.embedding_dim, spec.num_embeddings
        if ids is not None and ids <= self.exact_below:
            return None
        if self.zch_size is not None:
            return self.zch_size - 1
        exact = spec.known_ids("zero_collision") * 4 * width
        budget = (0.25 if self.ratio is None else self.ratio) * exact
        known = max(1, int((budget - 8 * width) / (4 * width + 8)))
        return known if (known + 2) * 4 * width + 8 * known < exact else None


class ZeroCollisionTable(Table):
    """Address: the row that the key owns, else the fallback row. Last row: missing value.

    Args:
        rows: ``Z`` rows of known ids, the fallback, the missing value.
        known: Who owns which row.
        interval: Training steps between two admissions.

    Shapes:
        ids: int64 keys ``[*S]``; vectors: float32 ``[*S, D]``.
    """

    reads: Literal["ids", "keys"] = "keys"
    concat = True
    additive = True
    moves_rows = True

    def __init__(self, rows: RowTable, known: KeyRows, interval: int) -> None:
        super().__init__([rows], rows.embedding_dim)
        self.known = known
        self.interval = interval

    def address(self, ids: Tensor) -> Tensor:
        """Return the one row of each key."""
        rows = torch.where(ids == MISSING_KEY, self.known.size + 1, self.known(ids))
        return rows.unsqueeze(-1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the one row of each key."""
        return rows[0]

    def before_lookup(self, store: RowStore, ids: Tensor) -> None:
        """Count the keys; every ``interval`` steps admit and evict, and draw the rows that changed hands afresh."""
        step = self.known.record(ids[ids != MISSING_KEY])
        if step % self.interval:
            return
        taken = self.known.admit()
        slot = self.slots[0]
        seeds = mix64(mix64(taken ^ self.known.get_buffer("salt")) + self.known.get_buffer("generations")[taken])
        store.write_rows(slot.name, fresh_rows(slot.init, seeds, slot.embedding_dim).to(taken.device), taken)
        for state in store.states:
            store.write_rows(slot.name, 0.0, taken, state)

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of the rows as served."""
        return {slot.name: served_row_bytes(slot, self.served_dtype) for slot in self.slots}

    @property
    def served_overhead_bytes(self) -> int:
        """Bytes of the sorted keys."""
        return 8 * self.known.size

    def compact(self, store: RowStore) -> Table:
        """Return the rows in the order of their sorted keys, without counts and history."""
        keys, rows = self.known.get_buffer("sorted_keys"), store.rows(self.slots[0].name)
        order = self.known.get_buffer("rows").long()
        rows = torch.cat([rows[: self.known.size][order], rows[self.known.size :]])
        return ServedZeroCollisionTable(rows, keys, self.served_dtype)


class ServedZeroCollisionTable(Table):
    """A trained ``ZeroCollisionTable`` as it is served; it cannot be trained.

    Args:
        rows: float32 ``[Z + 2, D]``: in the order of the keys, then the fallback and the missing value.
        sorted_keys: int64 ``[Z]``, rising.
        dtype: Type of the rows.
    """

    reads: Literal["ids", "keys"] = "keys"

    def __init__(self, rows: Tensor, sorted_keys: Tensor, dtype: ServedDtype = "float32") -> None:
        super().__init__([], rows.shape[1])
        self.rows = HeldRows(rows, dtype)
        self.register_buffer("sorted_keys", sorted_keys.clone())

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        keys = self.get_buffer("sorted_keys")
        places, found = find_sorted(keys, ids)
        places = torch.where(found, places, keys.shape[0])
        places = torch.where(ids == MISSING_KEY, keys.shape[0] + 1, places)
        vectors: Tensor = self.rows(places)
        return vectors
