"""``RowStore``: the one place where rows live, and the one lookup of a step.

Tables of one width lie stacked in one matrix, so that all features and methods of a model are looked up by one
kernel call per width, whatever the number of tables (on CPU FBGEMM is twice as fast so as with a table per feature).

Axes: ``N`` addresses, ``G`` bags, ``D`` width, ``R`` rows of a stack.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.rows.freed_memory import hand_back_memory
from recembed.rows.fresh import fresh_rows
from recembed.rows.optimizers import RowOptimizer
from recembed.rows.piece import Piece
from recembed.rows.processes import Processes
from recembed.rows.rounding import dtype_of_rows
from recembed.rows.row_table import Init, RowTable
from recembed.rows.sparse_data_dist import Requests, SparseDataDist

__all__ = ["Init", "RowStore", "RowTable"]

_LARGE = 2**26


class RowStore(nn.Module, ABC):
    """All rows of a model, updated inside the backward pass.

    The rows are no parameters of the module: ``backward()`` moves them (``optimizer``), and an optimiser built from
    ``model.parameters()`` sees the dense part alone. ``state_dict`` holds rows and optimiser states by table name,
    the same in every store.

    Args:
        tables: The tables; equal records may repeat, one name with two shapes is an error.
        optimizer: The row rule; None leaves rows alone in backward.
        seed: Fresh rows depend on it and on the table's name alone.
        device: Where the rows live.

    Attributes:
        processes: Those that train together.
        row_dtype: What rows are held as in training; optimiser states and all that comes out are float32.
    """

    most_rows = 2**31

    def __init__(
        self,
        tables: Sequence[RowTable],
        *,
        optimizer: RowOptimizer | None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.tables: dict[str, RowTable] = {}
        self.optimizer = optimizer
        self.seed = seed
        self.learning_rate = optimizer.learning_rate if optimizer else 0.0
        self.processes = self._processes()
        self.row_dtype = dtype_of_rows(tables, optimizer)
        self.stack_rows: dict[int, int] = {}
        self.first_row: dict[str, int] = {}
        for table in tables:
            self._place(table)
        if self.bytes >= _LARGE:
            hand_back_memory()
        self._allocate(torch.device(device))
        if self.row_dtype != torch.float32 and optimizer is not None:  # counted for the noise of their rounding
            self.register_buffer("lookups", torch.zeros((), dtype=torch.int64, device=device), persistent=False)
        self.reset_parameters()

    def _processes(self) -> Processes:
        return Processes()

    def _place(self, table: RowTable) -> None:
        known = self.tables.setdefault(table.name, table)
        if known != table:
            raise ConfigError(f"table {table.name!r} is asked for twice with different shapes: {known} and {table}")
        if table.name in self.first_row:
            return
        width = table.embedding_dim
        self.first_row[table.name] = self.stack_rows.get(width, 0)
        self.stack_rows[width] = self.first_row[table.name] + table.num_embeddings
        if self.stack_rows[width] > self.most_rows:
            raise ConfigError(f"tables of width {width} hold {self.stack_rows[width]} rows: expected at most 2**31")

    @abstractmethod
    def _allocate(self, device: torch.device) -> None:
        """Make room for every stack and its optimiser states."""

    @abstractmethod
    def forward(self, addresses: Tensor, width: int, offsets: Tensor | None = None) -> Tensor:
        """Look up rows of the stack of ``width``: one vector per address, or the sum of each bag.

        Shapes:
            addresses: int64 ``[N]``, counted from the start of the stack (``first_row``); offsets: int64
            ``[G + 1]`` or None. Returns float32 ``[N, D]``, or ``[G, D]`` with ``offsets``.
        """

    @abstractmethod
    def stack(self, width: int) -> Tensor:
        """Return the live rows of one width, ``[R, D]`` of ``row_dtype``, without gradient."""

    @abstractmethod
    def stack_states(self, width: int) -> dict[str, Tensor]:
        """Return the live optimiser states of one width, float32 ``[R, D]`` or ``[R]`` by name."""

    def _part(self, name: str, whole: Tensor) -> Tensor:
        start = self.first_row[name]
        return whole[start : start + self.tables[name].num_embeddings]

    def held(self, name: str) -> Tensor:
        """Return the live rows of one table, ``[num_embeddings, embedding_dim]`` of ``row_dtype``."""
        return self._part(name, self.stack(self.tables[name].embedding_dim))

    def rows(self, name: str) -> Tensor:
        """Return the rows of one table as float32: the live ones, or a copy of what is held in fewer bits."""
        return self.held(name).float()

    def optimizer_rows(self, name: str) -> dict[str, Tensor]:
        """Return the live optimiser states of one table by name."""
        states = self.stack_states(self.tables[name].embedding_dim)
        return {state: self._part(name, whole) for state, whole in states.items()}

    def live(self, name: str) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
        """Yield what of a table lies in this process: its first row, live rows, and live optimiser states."""
        yield 0, self.held(name), self.optimizer_rows(name)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the step size of the row rule."""
        self.learning_rate = learning_rate

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every table afresh from ``seed`` and its name, the same on every device and in every store."""
        for table in self.tables.values():
            rows = self.held(table.name)
            for state in self.optimizer_rows(table.name).values():
                state.zero_()
            if rows.is_meta:
                continue
            for start, fresh in fresh_rows(table, self.seed):
                rows[start : start + len(fresh)].copy_(fresh)
        if (lookups := self._lookups) is not None:
            lookups.zero_()

    @torch.no_grad()
    def read_rows(self, name: str, places: Tensor | None = None, state: str | None = None) -> Tensor:
        """Return float32 copies of some rows of a table, or of one of its optimiser states; all without ``places``.

        All processes call it with the same ``places``, int64 ``[U]``.
        """
        values = self.held(name) if state is None else self.optimizer_rows(name)[state]
        return values.to(torch.float32, copy=True) if places is None else values[places].float()

    @torch.no_grad()
    def write_rows(
        self, name: str, values: Tensor | float, places: Tensor | None = None, state: str | None = None
    ) -> None:
        """Write some rows of a table, or of one of its optimiser states; all where ``places`` is None.

        Rows that are held in fewer bits are rounded to nearest. All processes call it with the same ``places``, int64
        ``[U]``, unique, and the same ``values``, float32 ``[U, D]`` (a state of one number a row: ``[U]``) or one number.
        """
        live = self.held(name) if state is None else self.optimizer_rows(name)[state]
        live[slice(None) if places is None else places] = values.to(live) if isinstance(values, Tensor) else values

    def start_sparse_data_dist(self, requests: Requests) -> SparseDataDist | None:
        """Begin a lookup that ``gather`` ends, as far as other processes take part; None where none do."""
        return None

    def gather(self, requests: Requests, begun: SparseDataDist | None = None) -> dict[int, Tensor]:
        """Look up, for each width, addresses with or without the offsets of bags; see ``forward``."""
        self._count_lookup()
        return {width: self(addresses, width, offsets) for width, (addresses, offsets) in requests.items()}

    @property
    def _lookups(self) -> Tensor | None:
        return self._buffers.get("lookups")

    def _count_lookup(self) -> None:
        if self._lookups is not None and torch.is_grad_enabled():
            self._lookups.add_(1)

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the optimiser states of a row."""
        return tuple(self.optimizer.states) if self.optimizer else ()

    @property
    def bytes(self) -> int:
        """Bytes of all rows in training, optimiser states left out."""
        return sum(table.bytes for table in self.tables.values())

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimiser states as float32."""
        if self.optimizer is None:
            return 0
        numbers = (
            table.num_embeddings * self.optimizer.state_width(state, table.embedding_dim)
            for table in self.tables.values()
            for state in self.optimizer.states
        )
        return 4 * sum(numbers)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield ``table.weight`` and ``table.<state>`` with their live tensors, and ``lookups`` where they are counted."""
        if self._lookups is not None:
            yield "lookups", self._lookups
        for name in self.tables:
            yield f"{name}.weight", self.held(name)
            for state, values in self.optimizer_rows(name).items():
                yield f"{name}.{state}", values

    def named_pieces(self) -> Iterator[tuple[str, Piece]]:
        """Yield ``table.weight`` and ``table.<state>`` with what of them lies in this process."""
        for name, values in self.named_tensors():
            yield name, Piece.of(values)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, values in self.named_tensors():
            destination[prefix + name] = values.detach()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        wanted = dict(self.named_tensors())
        for name, values in wanted.items():
            given = state_dict.get(prefix + name)
            if given is None:
                missing_keys.append(prefix + name)
            elif given.shape != values.shape:
                error_msgs.append(f"{name}: shape {tuple(given.shape)}, expected {tuple(values.shape)}")
            else:
                with torch.no_grad():
                    values.copy_(given)
        unexpected_keys.extend(k for k in state_dict if k.startswith(prefix) and k[len(prefix) :] not in wanted)

    def extra_repr(self) -> str:
        """Return one line a table."""
        return "\n".join(f"{t.name}: {t.num_embeddings} x {t.embedding_dim}" for t in self.tables.values())
