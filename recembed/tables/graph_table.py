"""``GraphTable``: the view of users, or of items, on vectors that both share.

Axes: ``N`` ids of users and items together, ``D`` width of the vectors.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from recembed.errors import CheckpointError
from recembed.graph import Edges
from recembed.graph.propagated import Propagated
from recembed.rows import RowStore
from recembed.rows.piece import is_part
from recembed.rows.processes import Processes
from recembed.tables.base import Table
from recembed.tables.held_rows import held_bytes
from recembed.tables.served import ServedTable
from recembed.tables.spec import TableSpec

__all__ = ["GraphTable", "edges_digest"]


def edges_digest(edges: Edges) -> int:
    """Return an int64 that other edges do not have."""
    digest = hashlib.blake2b(digest_size=8)
    for array in (edges.pointers, edges.neighbours, edges.weights):
        digest.update(b"" if array is None else np.ascontiguousarray(array).data)
    return int.from_bytes(digest.digest(), "little", signed=True)


class GraphTable(Table):
    """Address: nothing. Decode: the propagated vectors of the ids.

    Args:
        spec: The feature.
        shared: The propagation that users and items share.
        start: Node of id 0.
        digest: Of the edges; a checkpoint over other edges is refused.
        counts: This view counts the bytes of the encoder.

    Shapes:
        ids: int64 ``[*S]``; vectors: float32 ``[*S, D]``.
    """

    def __init__(self, spec: TableSpec, shared: Propagated, start: int, digest: int, *, counts: bool) -> None:
        super().__init__([], shared.encoder.embedding_dim)
        self.shared, self.start = shared, start
        self.name, self._size, self._dtype = spec.name, spec.known_ids("graph"), spec.served_dtype
        self.register_buffer("edges", torch.tensor([digest], dtype=torch.int64))
        self._digest = digest
        self._bytes = super().overhead_bytes if counts else 8
        self.register_load_state_dict_pre_hook(_check_edges)  # type: ignore[no-untyped-call]

    @property
    def overhead_bytes(self) -> int:
        """Bytes of the encoder and its adjacency, in one of the two views, and of the digest; of all processes."""
        return self._bytes

    @property
    def served_overhead_bytes(self) -> int:
        """Bytes of the propagated vectors."""
        return held_bytes(self._size, self.embedding_dim, self._dtype)

    def join(self, processes: Processes) -> None:
        """Train together with these processes from now on, each with a slice of the nodes."""
        super().join(processes)
        self.shared.join(processes)

    @property
    def spread(self) -> str:
        """The nodes of the slices, and whether the vectors are cut with them."""
        nodes = self.shared.encoder.nodes
        if self.processes.count == 1:
            return ""
        if nodes.processes.count == 1:
            return f"each process holds and propagates all {nodes.num_nodes:,} nodes"
        cut = any(is_part(parameter) for parameter in self.shared.encoder.parameters())
        base = "their vectors lie there too" if cut else "their vectors are of a method that each process holds whole"
        return f"each process propagates some {len(nodes):,} of {nodes.num_nodes:,} nodes; {base}"

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses, ``[*S, 0]``."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the propagated vectors."""
        vectors: Tensor = self.shared()  # [N, D]
        return vectors[ids + self.start]

    @torch.no_grad()
    def compact(self, store: RowStore) -> Table:
        """Return the vectors of all ids, propagated for the last time."""
        training = self.shared.training
        vectors = self.shared.eval()()[self.start : self.start + self._size]
        self.shared.train(training)
        return ServedTable(vectors, self.embedding_dim, dtype=self._dtype)


def _check_edges(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    table = cast(GraphTable, module)
    found = state.get(f"{prefix}edges")
    if found is not None and int(found) != table._digest:
        raise CheckpointError(
            f"feature {table.name!r} was trained over other edges than those of the graph in its config; put the graph "
            "back that the run was trained with, or train again"
        )
