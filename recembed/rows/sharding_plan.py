"""``ShardingPlan``: which process holds which rows of which table, and why; a YAML file that people may edit.

Axes: none; sizes are rows, columns and bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recembed.errors import ConfigError, did_you_mean
from recembed.rows.optimizers import RowOptimizer, RowWiseAdagrad
from recembed.rows.row_table import RowTable
from recembed.rows.shard import Shard, readable, shard_bytes

__all__ = ["RowKernel", "ShardingPlan", "ShardingType", "TablePlan"]

RowKernel = Literal["fused", "fused_uvm_caching", "torch"]
ShardingType = Literal["data_parallel", "table_wise", "row_wise", "column_wise"]

_FIELDS = ("sharding", "ranks", "rows", "width", "kernel", "why")


class TablePlan(BaseModel):
    """How one table is spread.

    Attributes:
        sharding: ``data_parallel`` (a copy on every process), ``table_wise`` (all on one), ``row_wise`` (equal blocks of
            rows) or ``column_wise`` (equal groups of columns).
        ranks: The processes that hold a part, in the order of the parts; empty means all.
        rows, width: Of the table; 0 where the file does not say.
        kernel: What looks the parts up, the same for all tables: FBGEMM's ``fused`` kernel, ``fused_uvm_caching`` (rows
            in the host's memory, cached on the GPU), or plain ``torch``.
        why: The reason, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    sharding: ShardingType
    ranks: tuple[Annotated[int, Field(ge=0)], ...] = ()
    rows: Annotated[int, Field(ge=0)] = 0
    width: Annotated[int, Field(ge=0)] = 0
    kernel: RowKernel = "fused"
    why: str = ""


class ShardingPlan(BaseModel):
    """The plan of all tables for a number of processes.

    >>> plan = ShardingPlan(world_size=2, tables={"item": TablePlan(sharding="row_wise")})
    >>> [(shard.rank, shard.rows) for shard in plan.shards(RowTable("item", 5, 4))]
    [(0, range(0, 3)), (1, range(3, 5))]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    world_size: Annotated[int, Field(ge=1)]
    tables: dict[str, TablePlan]

    @property
    def kernel(self) -> RowKernel:
        """What looks up all tables."""
        return next((plan.kernel for plan in self.tables.values()), "fused")

    def shards(self, table: RowTable) -> tuple[Shard, ...]:
        """Return the parts of a table; for a copy on every process one part each."""
        plan = self.tables[table.name]
        rows, columns = range(table.num_embeddings), range(table.embedding_dim)
        ranks = plan.ranks or tuple(range(self.world_size))
        if plan.sharding == "data_parallel":
            return tuple(Shard(rank, rows, columns, copy=True) for rank in range(self.world_size))
        if plan.sharding == "table_wise":
            return (Shard(ranks[0], rows, columns),)
        if plan.sharding == "column_wise":
            width = len(columns) // len(ranks)
            return tuple(Shard(rank, rows, columns[i * width : (i + 1) * width]) for i, rank in enumerate(ranks))
        block = -(-len(rows) // len(ranks))
        parts = ((rank, rows[i * block : (i + 1) * block]) for i, rank in enumerate(ranks))
        return tuple(Shard(rank, part, columns) for rank, part in parts if len(part))

    def check(self, tables: Mapping[str, RowTable], world_size: int, optimizer: RowOptimizer | None) -> None:
        """Refuse a plan that drops, invents or cannot spread a table.

        Raises:
            ConfigError: names the table and what to write instead.
        """
        if self.world_size != world_size:
            raise ConfigError(
                f"plan: world_size = {self.world_size}, but {world_size} processes run; start {self.world_size} "
                "processes, or leave --plan out to plan anew"
            )
        for name in self.tables:
            if name not in tables:
                raise ConfigError(f"plan: table {name!r} is not in the model" + did_you_mean(name, tables))
        if missing := [name for name in tables if name not in self.tables]:
            raise ConfigError(f"plan: table {missing[0]!r} has no entry; every table of the model needs one")
        if odd := [name for name, plan in self.tables.items() if plan.kernel != self.kernel]:
            raise ConfigError(
                f"plan: table {odd[0]!r}: kernel = {self.tables[odd[0]].kernel!r}, other tables have {self.kernel!r}; tables of "
                "one width are looked up together: write the same kernel for all"
            )
        if optimizer is not None and optimizer.moves_every_row:
            raise ConfigError("row_optimizer.lazy = False trains in one process; set it to true, or --nproc to 1")
        for name, table in tables.items():
            self._check_table(self.tables[name], table, optimizer)

    def _check_table(self, plan: TablePlan, table: RowTable, optimizer: RowOptimizer | None) -> None:
        where, ranks = f"plan: table {table.name!r}", plan.ranks or tuple(range(self.world_size))
        for field, given, real in (
            ("rows", plan.rows, table.num_embeddings),
            ("width", plan.width, table.embedding_dim),
        ):
            if given not in (0, real):
                raise ConfigError(f"{where}: {field} = {given}, the model's table has {real}; plan anew for this model")
        if max(ranks) >= self.world_size:
            raise ConfigError(f"{where}: rank {max(ranks)} is outside 0..{self.world_size - 1}")
        if len(set(ranks)) < len(ranks):
            raise ConfigError(f"{where}: ranks {list(ranks)} name a process twice")
        if plan.sharding == "table_wise" and len(plan.ranks) != 1:
            raise ConfigError(f"{where}: table_wise needs one rank, ranks = {list(plan.ranks)}")
        if plan.sharding == "data_parallel" and set(ranks) != set(range(self.world_size)):
            raise ConfigError(f"{where}: data_parallel keeps a copy on every process; leave ranks out")
        if plan.sharding != "column_wise":
            return
        if table.embedding_dim % len(ranks):
            raise ConfigError(f"{where}: width {table.embedding_dim} is no multiple of its {len(ranks)} ranks")
        if isinstance(optimizer, RowWiseAdagrad) and len(ranks) > 1:
            raise ConfigError(
                f"{where}: column_wise with row_optimizer 'row_wise_adagrad' would keep one accumulator per group of "
                "columns and so train otherwise than one process; take row_wise here, or row_optimizer 'adagrad'"
            )

    def bytes(self, tables: Mapping[str, RowTable], optimizer: RowOptimizer | None) -> list[int]:
        """Return the bytes of rows and optimiser rows on each process."""
        totals = [0] * self.world_size
        for table in tables.values():
            for shard in self.shards(table):
                totals[shard.rank] += shard_bytes(shard, table, optimizer)
        return totals

    def describe(self, tables: Mapping[str, RowTable], optimizer: RowOptimizer | None) -> str:
        """Return the plan as a text table: a line for each table, and the bytes of each process."""
        header = ("table", "rows x width", "sharding", "kernel", "ranks", "bytes per rank", "why")
        lines = [header, *(self._line(table, optimizer) for table in tables.values())]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        totals = self.bytes(tables, optimizer)
        text.append("bytes by rank: " + ", ".join(f"{rank}: {readable(size)}" for rank, size in enumerate(totals)))
        return "\n".join(text)

    def _line(self, table: RowTable, optimizer: RowOptimizer | None) -> tuple[str, ...]:
        plan, shards = self.tables[table.name], self.shards(table)
        ranks = ",".join(str(shard.rank) for shard in shards)
        largest = max(shard_bytes(shard, table, optimizer) for shard in shards)
        size = f"{table.num_embeddings:,} x {table.embedding_dim}"
        return table.name, size, plan.sharding, plan.kernel, ranks, readable(largest), plan.why

    def to_yaml(self) -> str:
        """Return the plan as a file that ``from_yaml`` reads."""
        tables = {
            name: {
                field: list(value) if isinstance(value, tuple) else value for field, value in _ordered(plan) if value
            }
            for name, plan in self.tables.items()
        }
        head = "# Which process holds which table. Edit sharding and ranks, and train with --plan THIS_FILE.\n"
        return head + yaml.safe_dump({"world_size": self.world_size, "tables": tables}, sort_keys=False, width=120)

    @classmethod
    def from_yaml(cls, text: str, where: str = "plan") -> Self:
        """Read a plan.

        Raises:
            ConfigError: the text is no YAML, names a table twice, or has a field that no plan has.
        """
        try:
            raw = yaml.load(text, Loader=_OnceLoader)
        except yaml.YAMLError as error:
            raise ConfigError(f"{where}: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError(f"{where}: expected world_size and tables, got {type(raw).__name__}")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_explain(error)}") from error

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read the plan of a file."""
        try:
            return cls.from_yaml(Path(path).read_text(encoding="utf-8"), f"plan {path}")
        except OSError as error:
            raise ConfigError(f"plan {path}: {error.strerror or error}; name the file that a run wrote") from error


def _ordered(plan: TablePlan) -> Iterator[tuple[str, Any]]:
    values = plan.model_dump()
    return ((field, values[field]) for field in _FIELDS)


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key stands once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated key."""
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if twice := next((key for place, key in enumerate(keys) if key in keys[:place]), None):
            raise yaml.YAMLError(f"{twice!r} stands twice (line {node.start_mark.line + 1}); keep one of them")
        return super().construct_mapping(node, deep)


def _explain(error: ValidationError) -> str:
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")  # a misspelt field first
    first: Mapping[str, Any] = faults[0]
    place: Sequence[Any] = first["loc"]
    if first["type"] == "extra_forbidden":
        known = TablePlan.model_fields if len(place) > 1 else ShardingPlan.model_fields
        return f"{'.'.join(map(str, place))}: no such field" + did_you_mean(str(place[-1]), known)
    return f"{'.'.join(map(str, place))} = {first.get('input')!r}: {first['msg']}"
