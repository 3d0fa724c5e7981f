"""Where rows live: interchangeable row stores and the rules that move rows."""

import importlib.util
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch

from recembed.errors import ConfigError, MissingPackageError
from recembed.rows.base import Init, RowStore, RowTable
from recembed.rows.decay import decay_lookups
from recembed.rows.memory import beyond_gpu
from recembed.rows.optimizers import SGD, Adagrad, Adam, AnyRowOptimizer, RowOptimizer, RowWiseAdagrad
from recembed.rows.piece import Piece
from recembed.rows.plain import PlainStore
from recembed.rows.processes import Processes
from recembed.rows.row_table import RowDtype
from recembed.rows.served import ServedDtype, ServedStore, round_rows, served_row_bytes
from recembed.rows.shard import table_bytes
from recembed.rows.weight_decay import decay_rows

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AnyRowOptimizer",
    "Init",
    "Piece",
    "PlainStore",
    "Processes",
    "RowDtype",
    "RowOptimizer",
    "RowStore",
    "RowStoreName",
    "RowTable",
    "RowWiseAdagrad",
    "ServedDtype",
    "ServedStore",
    "StoreMaker",
    "decay_lookups",
    "decay_rows",
    "make_row_store",
    "round_rows",
    "served_row_bytes",
]

RowStoreName = Literal["auto", "torchrec", "torchrec_uvm", "torch"]


class StoreMaker(Protocol):
    """Makes the store of a model's tables."""

    def __call__(
        self, tables: Sequence[RowTable], *, optimizer: RowOptimizer | None, seed: int, device: torch.device | str
    ) -> RowStore:
        """Return a store of fresh rows."""


def make_row_store(
    name: RowStoreName,
    tables: Sequence[RowTable],
    *,
    optimizer: RowOptimizer | None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> RowStore:
    """Build a row store: ``torchrec`` (fused), ``torch`` (plain), or ``auto``, the first of them that works here.

    ``torchrec_uvm`` is ``torchrec`` with the rows in the host's memory, cached on the GPU. ``auto`` takes it where the rows
    and their optimiser states are more than is free on the GPU; it takes ``torch`` where FBGEMM lacks the row rule (Adam)
    or trains half-precision rows badly (on CPU), and on the meta device.
    """
    if name not in get_args(RowStoreName):
        raise ConfigError(f"row_store = {name!r}: expected one of {', '.join(map(repr, get_args(RowStoreName)))}")
    kind = torch.device(device).type
    if name == "torchrec_uvm" and kind == "cpu":
        raise ConfigError(
            "embeddings.row_store = 'torchrec_uvm': it caches on a GPU what lies in the host's memory, and this run trains on "
            "the CPU; set training.device to 'cuda', or row_store to 'auto'"
        )
    if name == "torch" or kind == "meta":
        return PlainStore(tables, optimizer=optimizer, seed=seed, device=device)
    half = kind == "cpu" and any(table.dtype != "float32" for table in tables)
    if name == "auto" and (isinstance(optimizer, Adam) or half or importlib.util.find_spec("fbgemm_gpu") is None):
        return PlainStore(tables, optimizer=optimizer, seed=seed, device=device)
    try:
        from recembed.rows.torchrec import TorchRecStore
        from recembed.rows.uvm import UvmStore
    except MissingPackageError:
        if name != "auto":
            raise
        return PlainStore(tables, optimizer=optimizer, seed=seed, device=device)
    cached = name == "torchrec_uvm" or (name == "auto" and beyond_gpu(table_bytes(tables, optimizer), device))
    store = UvmStore if cached else TorchRecStore
    return store(tables, optimizer=optimizer, seed=seed, device=device)
