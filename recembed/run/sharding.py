"""Which process holds which rows of a run: planned, read back from a file, said, and kept in the run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from recembed.config import RunConfig
from recembed.errors import ConfigError
from recembed.models import CTRModel
from recembed.rows import Processes, StoreMaker
from recembed.run.build import embedding_of
from recembed.run.files import write_text

__all__ = ["report_plan", "store_maker"]

PLAN_FILE = "sharding.yaml"


def store_maker(
    config: RunConfig, processes: Processes, plan: Path | str | None, device: torch.device
) -> StoreMaker | None:
    """Return what makes the row store of a run; None for a run of one process.

    Args:
        config: The run.
        processes: Those that train together.
        device: Where this process trains.
        plan: A file that an earlier run wrote, ``size`` or None to plan by size, ``torchrec`` for TorchRec's planner.

    Raises:
        ConfigError: a plan for a single process, or a file that is no plan.
    """
    if processes.count == 1:
        if plan is not None:
            raise ConfigError(f"--plan {plan}: a single process holds all rows; add --nproc, or start it by torchrun")
        return None
    from recembed.rows.process_group import ProcessGroup
    from recembed.rows.sharded_stores import ShardedStores
    from recembed.rows.sharding_plan import RowKernel, ShardingPlan

    assert isinstance(processes, ProcessGroup)
    plain = config.embeddings.row_store == "torch" or (
        config.embeddings.row_dtype != "float32" and device.type == "cpu"
    )
    kernel: RowKernel = "torch" if plain else "fused"
    if config.embeddings.row_store == "torchrec_uvm":
        kernel = "fused_uvm_caching"
    batch = -(-config.training.batch_size // processes.count)
    if plan in (None, "size", "torchrec"):
        planner: Literal["size", "torchrec"] = "torchrec" if plan == "torchrec" else "size"
        return ShardedStores(processes, planner=planner, kernel=kernel, batch_size=batch)
    text = processes.first_does(lambda: ShardingPlan.load(str(plan)).to_yaml())
    return ShardedStores(processes, ShardingPlan.from_yaml(text, f"plan {plan}"))


def report_plan(model: CTRModel, out: Path, say: Callable[[str], None]) -> None:
    """Say who holds what, and write it as a file that ``--plan`` reads."""
    from recembed.rows.sharded import ShardedStore

    store = embedding_of(model).store
    if isinstance(store, ShardedStore):
        for line in store.plan.describe(store.tables, store.optimizer).splitlines():
            say(line)
        for name, table in embedding_of(model).all_tables().items():
            if table.spread:
                say(f"{name}: {table.spread}")
        write_text(out / PLAN_FILE, store.plan.to_yaml())
