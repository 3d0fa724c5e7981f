"""``ShardedStore``: rows spread over processes; one exchange of addresses and one of rows a step, for all widths.

The plan may come from TorchRec's planner, and FBGEMM's fused kernels look rows up and move them, as in one process. The
exchange is a plain all-to-all of row addresses: TorchRec's own sharded collections want one bag per feature and example, while a
lookup here is any number of addresses (probes, digits, chunks, sequences) in one list, and their unpooled form is slow
on CPU. Each address is sent once per step and process, however often its batch reads it.

Axes: ``N`` addresses, ``U`` unique ones, ``D`` width, ``W`` processes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.rows.base import RowStore
from recembed.rows.exchange import RowExchange, Trip
from recembed.rows.lanes import local_order, make_lanes
from recembed.rows.optimizers import RowOptimizer
from recembed.rows.piece import Piece
from recembed.rows.process_group import ProcessGroup
from recembed.rows.processes import Processes
from recembed.rows.row_table import RowTable
from recembed.rows.shard import Shard
from recembed.rows.sharding_plan import RowKernel, ShardingPlan
from recembed.rows.sparse_data_dist import Requests, SparseDataDist

if TYPE_CHECKING:
    from recembed.rows import RowStoreName

__all__ = ["ShardedStore"]

_STORES: dict[RowKernel, "RowStoreName"] = {"fused": "auto", "fused_uvm_caching": "torchrec_uvm", "torch": "torch"}


class ShardedStore(RowStore):
    """Row store over processes; every method is called by all of them, in the same order.

    Gradients count by ``processes.share``, this process's share of the global batch, so that a loss which is a mean
    over its rows trains as the mean over the global batch does. ``rows`` and ``state_dict`` collect whole tables;
    ``parts`` are the live rows here.

    Args:
        tables, optimizer, seed, device: As of every store.
        plan: Who holds what; it is checked.
        processes: Those that train together.

    Raises:
        ConfigError: the plan does not fit the tables or the number of processes.
    """

    most_rows = 2**62

    def __init__(
        self,
        tables: Sequence[RowTable],
        *,
        optimizer: RowOptimizer | None,
        plan: ShardingPlan,
        processes: ProcessGroup,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.plan, self._group = plan, processes
        super().__init__(tables, optimizer=optimizer, seed=seed, device=device)

    def _processes(self) -> Processes:
        return self._group

    def _allocate(self, device: torch.device) -> None:
        from recembed.rows import make_row_store  # it makes stores of every kind

        self.plan.check(self.tables, self._group.count, self.optimizer)
        order = local_order(self.tables, self.plan)
        parts = [part for part, rank in order if rank == self._group.rank]
        local = make_row_store(
            _STORES[self.plan.kernel], parts, optimizer=self.optimizer, seed=self.seed, device=device
        )
        self._local = (local,)  # no submodule: its rows are saved by the names of whole tables
        lanes = make_lanes(self.tables, self.first_row, self.plan, device)
        self._exchange = RowExchange(lanes, local, self._group)
        self.register_buffer("_trigger", torch.zeros((), device=device), persistent=False)
        self._drawn = True

    @property
    def local(self) -> RowStore:
        """The store of this process's parts."""
        return self._local[0]

    def reset_parameters(self) -> None:
        """Draw this process's parts afresh; no process draws more than a block that it does not hold."""
        if not self._drawn:
            self.local.reset_parameters()
        self._drawn = False

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the step size of the row rule."""
        super().set_learning_rate(learning_rate)
        self.local.set_learning_rate(learning_rate)

    def forward(self, addresses: Tensor, width: int, offsets: Tensor | None = None) -> Tensor:
        """Look up rows, or sums of bags; see ``RowStore.forward``."""
        return self.gather({width: (addresses, offsets)})[width]

    def start_sparse_data_dist(self, requests: Requests) -> Trip:
        """Tell all processes how many rows of theirs are wanted; all begin and ``gather`` lookups in the same order."""
        train = torch.is_grad_enabled() and self.optimizer is not None
        return self._exchange.start({width: addresses for width, (addresses, _) in requests.items()}, train=train)

    def gather(self, requests: Requests, begun: SparseDataDist | None = None) -> dict[int, Tensor]:
        """Look up all widths in one exchange."""
        trip = begun if isinstance(begun, Trip) else self.start_sparse_data_dist(requests)
        self._count_lookup()
        if self._lookups is not None and self.local._lookups is not None:
            self.local._lookups.copy_(self._lookups)
        fetched = self._exchange.fetch(trip)
        found: dict[int, Tensor] = {}
        for width, (_, offsets) in requests.items():
            place = trip.places[width]
            if offsets is None:
                found[width] = F.embedding(place, fetched[width])  # [N, D]
            else:
                found[width] = F.embedding_bag(place, fetched[width], offsets, mode="sum", include_last_offset=True)
        return found

    def parts(self, name: str, state: str | None = None) -> Iterator[tuple[Shard, Tensor]]:
        """Yield the parts of a table that lie here, with their live rows or states."""
        table = self.tables[name]
        for shard in self.plan.shards(table):
            if shard.rank == self._group.rank:
                part = shard.table(table).name
                yield shard, self.local.held(part) if state is None else self.local.optimizer_rows(part)[state]

    def live(self, name: str) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
        """Yield the parts of a table that lie here."""
        table = self.tables[name]
        for shard, rows in self.parts(name):
            yield shard.rows.start, rows, self.local.optimizer_rows(shard.table(table).name)

    def named_pieces(self) -> Iterator[tuple[str, Piece]]:
        """Yield the live parts that lie here; of copies on all processes rank 0 keeps the one that is saved."""
        if self._lookups is not None:
            yield "lookups", Piece.of(self._lookups, saved=self._group.rank == 0)
        for name, table in self.tables.items():
            for state in (None, *self.states):
                whole = self._shape(table, state)
                for shard, values in self.parts(name, state):
                    start = (shard.rows.start, shard.columns.start)[: len(whole)]
                    doubled = (shard.copy and shard.rank > 0) or (len(whole) == 1 and shard.columns.start > 0)
                    yield f"{name}.{state or 'weight'}", Piece(values, start, whole, saved=not doubled)

    def held(self, name: str) -> Tensor:
        """Return a copy of the whole table, on every process; change rows by ``write_rows``."""
        return self._collect(name, None)

    def optimizer_rows(self, name: str) -> dict[str, Tensor]:
        """Return copies of the whole table's states."""
        return {state: self._collect(name, state) for state in self.states}

    @torch.no_grad()
    def _collect(self, name: str, state: str | None) -> Tensor:
        table, own = self.tables[name], dict(self.parts(name, state))
        whole = self._empty(table, table.num_embeddings, state).to(torch.float32 if state else self.row_dtype)
        for shard in self.plan.shards(table):
            if shard.copy and shard.rank:
                continue
            window = whole[shard.rows.start : shard.rows.stop]
            if whole.ndim == 2:
                window = window[:, shard.columns.start : shard.columns.stop]
            piece = own[shard].contiguous() if shard in own else torch.empty_like(window).contiguous()
            self._group.broadcast(piece, shard.rank)
            window.copy_(piece)
        return whole

    def _shape(self, table: RowTable, state: str | None) -> tuple[int, ...]:
        vector = state is None or (self.optimizer is not None and self.optimizer.states[state])
        return (table.num_embeddings, table.embedding_dim)[: 2 if vector else 1]

    def _empty(self, table: RowTable, rows: int, state: str | None) -> Tensor:
        shape = (rows, *self._shape(table, state)[1:])
        return torch.zeros(shape, device=self.get_buffer("_trigger").device)

    @torch.no_grad()
    def read_rows(self, name: str, places: Tensor | None = None, state: str | None = None) -> Tensor:
        """Return copies of some rows on every process; all call it with the same ``places``."""
        if places is None:
            return self._collect(name, state).float()
        found = self._empty(self.tables[name], len(places), state)
        for shard, live in self.parts(name, state):
            if shard.copy and self._group.rank:
                continue
            here = _inside(places, shard)
            columns = slice(shard.columns.start, shard.columns.stop)
            rows = live[places[here] - shard.rows.start].float()
            if found.ndim == 2:
                found[here, columns] = rows
            elif shard.columns.start == 0:
                found[here] = rows
        return self._group.total(found)

    @torch.no_grad()
    def write_rows(
        self, name: str, values: Tensor | float, places: Tensor | None = None, state: str | None = None
    ) -> None:
        """Write some rows; all processes call it with the same ``places`` and ``values``, each keeps its own part."""
        for shard, live in self.parts(name, state):
            rows: Any = slice(shard.rows.start, shard.rows.stop) if places is None else _inside(places, shard)
            given = values if isinstance(values, float | int) else values[rows]
            if isinstance(given, Tensor):
                given = given.to(live)
                given = given[:, shard.columns.start : shard.columns.stop] if live.ndim == 2 else given
            live[slice(None) if places is None else places[rows] - shard.rows.start] = given

    def stack(self, width: int) -> Tensor:
        """Return copies of the rows of one width."""
        return torch.cat([self.held(name) for name, table in self.tables.items() if table.embedding_dim == width])

    def stack_states(self, width: int) -> dict[str, Tensor]:
        """Return copies of the optimiser states of one width."""
        names = [name for name, table in self.tables.items() if table.embedding_dim == width]
        return {state: torch.cat([self._collect(name, state) for name in names]) for state in self.states}

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        wanted = {f"{n}.{s or 'weight'}": (n, s) for n in self.tables for s in (None, *self.states)}
        for key, (name, state) in wanted.items():
            given, shape = state_dict.get(prefix + key), self._shape(self.tables[name], state)
            if given is None:
                missing_keys.append(prefix + key)
            elif tuple(given.shape) != shape:
                error_msgs.append(f"{key}: shape {tuple(given.shape)}, expected {shape}")
            else:
                self.write_rows(name, given, state=state)
        if self._lookups is not None and prefix + "lookups" in state_dict:
            self._lookups.copy_(state_dict[prefix + "lookups"])
        known = {*wanted, *(() if self._lookups is None else ("lookups",))}
        unexpected_keys.extend(k for k in state_dict if k.startswith(prefix) and k[len(prefix) :] not in known)


def _inside(places: Tensor, shard: Shard) -> Tensor:
    return ((places >= shard.rows.start) & (places < shard.rows.stop)).nonzero().squeeze(1)
