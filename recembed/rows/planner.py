"""Plans without TorchRec: which tables are copied, which are cut, and where the others lie."""

from collections.abc import Mapping

from recembed.rows.optimizers import RowOptimizer
from recembed.rows.row_table import RowTable
from recembed.rows.shard import readable, table_bytes
from recembed.rows.sharding_plan import RowKernel, ShardingPlan, ShardingType, TablePlan

__all__ = ["plan_by_size"]


def plan_by_size(
    tables: Mapping[str, RowTable],
    world_size: int,
    *,
    optimizer: RowOptimizer | None = None,
    copy_below: int = 1 << 20,
    kernel: RowKernel = "fused",
) -> ShardingPlan:
    """Plan without TorchRec: small tables copied, large ones cut by rows, the rest whole on the emptiest process.

    Args:
        tables: The tables by name.
        world_size: Processes.
        optimizer: Its states count as bytes too.
        copy_below: Bytes of rows up to which a table is copied.
        kernel: Stands in the plan.
    """
    sizes = {name: table_bytes([table], optimizer) for name, table in tables.items()}
    fair = sum(sizes.values()) / world_size
    loads, plans = [0.0] * world_size, dict[str, TablePlan]()
    for name in sorted(tables, key=lambda name: -sizes[name]):
        table = tables[name]
        ranks: tuple[int, ...] = ()
        sharding: ShardingType
        if world_size == 1:
            sharding, why, ranks = "table_wise", "one process", (0,)
        elif table.bytes <= copy_below:
            sharding, why = "data_parallel", f"{readable(table.bytes)} of rows: a copy is cheaper than an exchange"
        elif sizes[name] > fair / 2 and table.num_embeddings >= world_size:
            sharding, why = "row_wise", f"{readable(sizes[name])} is more than half of a process's fair share"
            loads = [load + sizes[name] / world_size for load in loads]
        else:
            rank = loads.index(min(loads))
            loads[rank] += sizes[name]
            sharding, why, ranks = "table_wise", f"fits one process; rank {rank} had the fewest bytes", (rank,)
        plans[name] = TablePlan(
            sharding=sharding, ranks=ranks, rows=table.num_embeddings, width=table.embedding_dim, kernel=kernel, why=why
        )
    return ShardingPlan(world_size=world_size, tables={name: plans[name] for name in tables})
