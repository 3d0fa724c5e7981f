"""TorchRec's planner for our tables: which are copied, cut or kept whole, by its estimates of time and memory.

The only file that imports ``torchrec.distributed``.
"""

from collections.abc import Mapping
from typing import Literal

from recembed.errors import ConfigError
from recembed.rows.optimizers import RowOptimizer, RowWiseAdagrad
from recembed.rows.quiet import quiet
from recembed.rows.row_table import RowTable
from recembed.rows.shard import readable, table_bytes
from recembed.rows.sharding_plan import RowKernel, ShardingPlan, TablePlan

with quiet():
    import torchrec
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
    from torchrec.distributed.planner.types import ParameterConstraints, PlannerError

__all__ = ["plan_by_torchrec"]

_KINDS = ("data_parallel", "table_wise", "column_wise", "row_wise")
_LANES = 4
_CACHED: RowKernel = "fused_uvm_caching"


class _Sharder(EmbeddingBagCollectionSharder):  # type: ignore[misc]
    """Knows what our exchange can do on either device."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Return all kinds of ``ShardingPlan``."""
        return list(_KINDS)

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """Return the kernels for rows that are copied, or held once."""
        if sharding_type == "data_parallel":
            return ["dense"]
        return ["fused", _CACHED] if compute_device_type == "cuda" else ["fused"]


def plan_by_torchrec(
    tables: Mapping[str, RowTable],
    world_size: int,
    *,
    optimizer: RowOptimizer | None,
    batch_size: int,
    memory: int,
    host_memory: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
    processes_per_host: int | None = None,
) -> ShardingPlan:
    """Plan by TorchRec's cost model.

    Args:
        tables: The tables by name.
        world_size: Processes.
        optimizer: The row rule; row-wise Adagrad rules out cuts by column.
        batch_size: Rows of a process's batch.
        memory: Bytes for rows on each process, of the device they run on.
        host_memory: Bytes of the host's memory for rows of each process that its GPU caches; where one table needs them, all
            are held there.
        device: What they run on.
        processes_per_host: Processes that share fast links; None takes all.

    Raises:
        ConfigError: the tables do not fit; names the bytes.
    """
    kinds = [kind for kind in _KINDS if kind != "column_wise" or not isinstance(optimizer, RowWiseAdagrad)]
    constraints = {name: ParameterConstraints(sharding_types=kinds) for name in tables}
    with quiet():
        topology = Topology(
            world_size=world_size,
            compute_device=device,
            hbm_cap=memory if device == "cuda" else 0,
            ddr_cap=host_memory if device == "cuda" else memory,
            local_world_size=processes_per_host or world_size,
        )
        planner = EmbeddingShardingPlanner(
            topology=topology, batch_size=batch_size, constraints=constraints, debug=False
        )
        try:
            found = planner.plan(_collection(tables), [_Sharder()])
        except PlannerError as error:
            needed = table_bytes(tables.values(), optimizer)
            raise ConfigError(
                f"the tables take {readable(needed)} with optimiser rows; {world_size} processes of {readable(memory)} "
                "cannot hold them: add processes or memory, or shrink the tables (embeddings.table)"
            ) from error
    chosen = found.plan[""]
    kernel: RowKernel = _CACHED if any(chosen[name].compute_kernel == _CACHED for name in tables) else "fused"
    return ShardingPlan(
        world_size=world_size,
        tables={name: _table_plan(chosen[name], table, world_size, kernel) for name, table in tables.items()},
    )


def _collection(tables: Mapping[str, RowTable]) -> "torchrec.EmbeddingBagCollection":
    configs = [
        torchrec.EmbeddingBagConfig(
            name=name,
            num_embeddings=table.num_embeddings,
            embedding_dim=-(-table.embedding_dim // _LANES) * _LANES,
            feature_names=[name],
        )
        for name, table in tables.items()
    ]
    return torchrec.EmbeddingBagCollection(tables=configs, device="meta")


def _table_plan(
    found: "torchrec.distributed.types.ParameterSharding", table: RowTable, world_size: int, kernel: RowKernel
) -> TablePlan:
    kind, ranks = found.sharding_type, tuple(found.ranks or ())
    if kind == "column_wise" and (table.embedding_dim % len(ranks) or len(set(ranks)) < len(ranks)):
        kind, ranks = "table_wise", ranks[:1]  # columns that cannot be cut alike stay together
    if kind == "data_parallel" or (kind == "row_wise" and ranks == tuple(range(world_size))):
        ranks = ()
    size = readable(table.bytes)
    return TablePlan(
        sharding=kind,
        ranks=ranks,
        rows=table.num_embeddings,
        width=table.embedding_dim,
        kernel=kernel,
        why=f"TorchRec's estimate; {size}",
    )
