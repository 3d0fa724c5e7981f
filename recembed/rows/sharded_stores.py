"""``ShardedStores``: plans, checks what fits, and makes sharded stores."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch

from recembed.rows.memory import available_memory, beyond_gpu, check_memory
from recembed.rows.optimizers import RowOptimizer
from recembed.rows.planner import plan_by_size
from recembed.rows.process_group import ProcessGroup
from recembed.rows.row_table import RowTable
from recembed.rows.sharded import ShardedStore
from recembed.rows.sharding_plan import RowKernel, ShardingPlan

__all__ = ["ShardedStores"]


class ShardedStores:
    """Makes sharded stores: what ``FeatureEmbedding`` takes as ``make_store``.

    Args:
        processes: Those that train together.
        plan: Who holds what; None plans anew.
        planner: Plans by ``size``, or by ``torchrec``'s estimates.
        kernel: Looks rows up, where there is no plan; ``fused`` becomes ``fused_uvm_caching`` where a GPU has too little
            memory for its rows.
        batch_size: Rows of a process's batch, for TorchRec's estimates.
        copy_below: Bytes up to which a table is copied, where the plan is by size.

    Attributes:
        plan: After a store was made, its plan.
    """

    def __init__(
        self,
        processes: ProcessGroup,
        plan: ShardingPlan | None = None,
        *,
        planner: Literal["size", "torchrec"] = "size",
        kernel: RowKernel = "fused",
        batch_size: int = 4096,
        copy_below: int = 1 << 20,
    ) -> None:
        self.processes, self.plan, self.planner = processes, plan, planner
        self.kernel, self.batch_size, self.copy_below = kernel, batch_size, copy_below

    def __call__(
        self, tables: Sequence[RowTable], *, optimizer: RowOptimizer | None, seed: int, device: torch.device | str
    ) -> ShardedStore:
        """Return a store of fresh rows, those of one process.

        Raises:
            ConfigError: the plan does not fit, or there is too little memory for it; nothing is allocated then.
        """
        named = {table.name: table for table in tables}
        self.plan = self.plan or self._planned(named, optimizer, torch.device(device))
        self.plan.check(named, self.processes.count, optimizer)
        self.processes.agree("the plan of the tables", hashlib.sha256(self.plan.to_yaml().encode()).hexdigest()[:12])
        sizes = self.plan.bytes(named, optimizer)
        place = "cpu" if self.plan.kernel == "fused_uvm_caching" else device
        check_memory(sizes[self.processes.rank], sum(sizes), self.processes, place)
        return ShardedStore(
            tables, optimizer=optimizer, plan=self.plan, processes=self.processes, seed=seed, device=device
        )

    def _planned(
        self, tables: Mapping[str, RowTable], optimizer: RowOptimizer | None, device: torch.device
    ) -> ShardingPlan:
        count = self.processes.count
        if self.planner == "size":
            plan = partial(plan_by_size, tables, count, optimizer=optimizer, copy_below=self.copy_below)
            found = plan(kernel=self.kernel)
            needed = found.bytes(tables, optimizer)[self.processes.rank]
            short = self.kernel == "fused" and any(self.processes.tell(beyond_gpu(needed, device)))
            return plan(kernel="fused_uvm_caching") if short else found
        from recembed.rows.torchrec_planner import plan_by_torchrec

        on_gpu = device.type == "cuda"
        # processes of one machine share its memory, not a GPU's
        host = min(self.processes.tell(available_memory() or 1 << 40)) // count
        free = min(self.processes.tell(available_memory(device) or 1 << 40)) if on_gpu else host
        return plan_by_torchrec(
            tables,
            count,
            optimizer=optimizer,
            batch_size=self.batch_size,
            memory=free,
            host_memory=host,
            device="cuda" if on_gpu else "cpu",
        )
