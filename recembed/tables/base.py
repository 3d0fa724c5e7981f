"""``Table``: what every embedding method is, an address before the gather and a decode after it.

Axes: ``*S`` any shape of ids, ``P`` slots (rows fetched per id), ``d`` width of a slot, ``D`` width of the result,
``B`` rows of a batch, ``n`` features handled together.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.rows import RowStore, RowTable, ServedDtype
from recembed.rows.processes import Processes
from recembed.tables.spec import TableSpec

__all__ = ["Table", "TableConfig", "Together"]


class TableConfig(BaseModel):
    """The settings of one method: flat, frozen, unknown keys refused. Subclasses fix ``kind``.

    A method that can be sized has a field ``ratio``: its served bytes as a share of the exact table's.

    Attributes:
        sized_by: The other field that sets the size; ``ratio`` must not be given beside it.
        recipe: The stages of a method that takes several, as in a run's ``stages``; empty for one training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    sized_by: ClassVar[str] = ""
    recipe: ClassVar[tuple[dict[str, Any], ...]] = ()

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self._fixed and getattr(self, "ratio", None) is not None:
            raise ValueError(f"{self.sized_by} and ratio are both given; keep one of them")
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out an ``exact_below`` that nobody set: read back, a budget may lower it again as it did before."""
        written: dict[str, Any] = write(self)
        if "exact_below" not in self.model_fields_set:
            written.pop("exact_below", None)
        return written

    @property
    def _fixed(self) -> bool:
        return bool(self.sized_by) and getattr(self, self.sized_by) is not None

    def resized(self, ratio: float) -> Self:
        """Return these settings with ``ratio``, or themselves where the size is fixed."""
        if "ratio" not in type(self).model_fields or self._fixed:
            return self
        return self.model_copy(update={"ratio": ratio})

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, "Table"]:
        """Build one table per spec, keyed by its name; methods that share rows see all their features at once."""
        raise NotImplementedError


class Table(nn.Module, ABC):
    """One feature's ids to vectors, without the rows: ``decode(gather(address(ids)), ids)``.

    Attributes:
        reads: ``ids`` of the vocabulary, or raw 64-bit ``keys``.
        concat: decode only lays the rows of an id side by side; it costs nothing.
        additive: decode only adds the rows of an id up (one row is the simplest case), so pooling may precede it.
        moves_rows: ``before_lookup`` wants to be called.
        slots: The row table of each row an id fetches; equal records are shared rows.
        embedding_dim: Width of the vectors.
        processes: Those that train on parts of the same batch; what looks beyond a row asks them.
        served_dtype: Type of the rows that a compact form of its own holds.
        exact_rows: Why rows of half precision will not do for training; empty where they will.
    """

    processes: Processes = Processes()
    reads: Literal["ids", "keys"] = "ids"
    concat: bool = False
    additive: bool = False
    moves_rows: bool = False
    served_dtype: ServedDtype = "float32"
    exact_rows: str = ""

    def __init__(self, slots: Sequence[RowTable], embedding_dim: int) -> None:
        super().__init__()
        self.slots = tuple(slots)
        self.embedding_dim = embedding_dim
        self._losses: list[Tensor] = []

    @abstractmethod
    def address(self, ids: Tensor) -> Tensor:
        """Return int64 ``[*S, P]``: for each slot, the row of its table that each id of ``[*S]`` fetches."""

    @abstractmethod
    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Turn the fetched rows, ``P`` tensors ``[*S, d]``, into vectors ``[*S, D]``."""

    @property
    def overhead_bytes(self) -> int:
        """Bytes the method holds beside its rows: dense parameters, remaps, salts."""
        return sum(t.numel() * t.element_size() for t in [*self.parameters(), *self.buffers()])

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of the rows as served, by row table; tables that several features share count once."""
        return {slot.name: slot.bytes for slot in self.slots}

    @property
    def served_overhead_bytes(self) -> int:
        """Planned bytes served beside the rows."""
        return self.overhead_bytes

    def before_lookup(self, store: RowStore, ids: Tensor) -> None:
        """Move rows and optimiser rows before a training step reads ``ids``, int64 ``[N]``: admission, rounding.

        Called only where ``moves_rows``, under ``no_grad``, in every process with the ids of the global batch, and not
        for the validation rows of a search. What it does may depend on buffers, rows and ids alone, so that a resumed
        run goes on bit for bit.
        """

    def join(self, processes: Processes) -> None:
        """Train together with these processes from now on."""
        self.processes = processes

    @property
    def spread(self) -> str:
        """How the processes share what the method keeps beside its rows, in words; empty where each has a copy."""
        return ""

    def add_loss(self, loss: Tensor) -> None:
        """Add a scalar to the training loss of this step; for ``decode`` in training."""
        self._losses.append(loss)

    def take_losses(self) -> list[Tensor]:
        """Return what ``add_loss`` was given since the last time."""
        losses, self._losses = self._losses, []
        return losses

    def train(self, mode: bool = True) -> Self:
        """Set the mode; losses that nobody took are dropped."""
        self._losses = []
        return super().train(mode)

    def search_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that a search stage moves by the loss of validation rows."""
        return []

    def width_choices(self) -> tuple[int, ...]:
        """Return the widths between which an evolutionary search may choose; none by default."""
        return ()

    def choose_width(self, width: int) -> None:
        """Take one of ``width_choices`` from now on."""
        raise ConfigError(f"{type(self).__name__} has no widths to choose from; search methods that do")

    @property
    def settles(self) -> bool:
        """Whether ``settle`` has anything to fix."""
        return type(self).settle is not Table.settle

    def settle(self, store: RowStore) -> dict[str, float]:
        """Fix what training found (which rows stay, which widths, which codes) and return it by name.

        From then on the table trains and serves under these decisions; they are buffers, part of the checkpoint.
        The base settles nothing.
        """
        return {}

    def compact(self, store: RowStore) -> "Table":
        """Return the form that serves the trained vectors in the fewest bytes; itself where that is it already.

        A compact table holds its own bytes as buffers (rows, codes, remaps), decodes with plain torch ops, and gives
        the vectors of evaluation mode.

        Raises:
            ConfigError: the method has to be settled first.
        """
        return self

    @classmethod
    def together(cls, tables: Sequence["Table"]) -> "Together":
        """Return one module that handles several features of this method at once."""
        return Together(tables)


class Together(nn.Module):
    """Several features of one method: addresses of all before the gather, vectors of all after it.

    This general form asks each table in turn; a method with hot arithmetic overrides it with one vectorised step.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(tables)
        self.slots = tuple(slot for table in tables for slot in table.slots)
        self.embedding_dims = tuple(table.embedding_dim for table in tables)
        self.widths = tuple(sorted({slot.embedding_dim for slot in self.slots}))
        self._order = {w: [i for i, s in enumerate(self.slots) if s.embedding_dim == w] for w in self.widths}
        self.concat = all(table.concat for table in tables) and len(self.widths) == 1
        self.additive = all(table.additive for table in tables)

    def bind(self, store: RowStore) -> None:
        """Learn where each slot's table starts in the store, and who trains on it."""
        for table in self._tables:
            table.join(store.processes)
        first = torch.tensor([store.first_row[slot.name] for slot in self.slots], dtype=torch.int64)
        self.register_buffer("first", first, persistent=False)

    def slots_of(self, width: int) -> int:
        """Return how many slots are ``width`` wide."""
        return len(self._order[width])

    def address(self, ids: Tensor) -> Tensor:
        """Return int64 ``[B, slots]``, counted from the start of each table, for ids ``[B, n]``."""
        columns = [table.address(ids[:, i]) for i, table in enumerate(self._tables)]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def addresses_like(self, other: "Together") -> bool:
        """Tell whether ``address`` of ``other``, over the same features, always returns the same as this one's."""
        return False

    def lookups(self, addresses: Tensor) -> dict[int, Tensor]:
        """Return ``addresses`` by width, int64 ``[B, slots of that width]``, counted from the start of the stack."""
        addresses = addresses + self.get_buffer("first")
        if len(self.widths) == 1:
            return {self.widths[0]: addresses}
        return {width: addresses[:, self._order[width]] for width in self.widths}

    def decode(self, rows: dict[int, Tensor], ids: Tensor) -> Tensor:
        """Turn rows by width, ``[B, slots of that width, width]``, into ``[B, sum(embedding_dims)]``."""
        if self.concat:
            return rows[self.widths[0]].flatten(1)
        fetched: list[Tensor] = [ids] * len(self.slots)  # each place is filled below
        for width, places in self._order.items():
            for column, place in enumerate(places):
                fetched[place] = rows[width][:, column]
        vectors, start = [], 0
        for i, table in enumerate(self._tables):
            vectors.append(table.decode(fetched[start : start + len(table.slots)], ids[:, i]))
            start += len(table.slots)
        return torch.cat(vectors, dim=1)

    @property
    def _tables(self) -> list[Table]:
        return [table for table in self.tables if isinstance(table, Table)]
