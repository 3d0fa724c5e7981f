"""``Propagated``: the vectors of a graph encoder, propagated once however many readers ask within a step.

Axes: ``N`` nodes, ``D`` width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from recembed.graph.encoder import GraphEncoder
from recembed.rows.processes import Processes

__all__ = ["Propagated"]


class Propagated(nn.Module):
    """Propagates when asked, and again only after a backward pass, a moved parameter or a change of mode.

    Args:
        encoder: What propagates.

    Shapes:
        forward: float32 ``[N, D]``, users first.
    """

    def __init__(self, encoder: GraphEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self._state: tuple[Any, ...] = ()
        self._vectors: Tensor | None = None

    def join(self, processes: Processes) -> None:
        """Propagate together with these processes, told once."""
        if processes.count > self.encoder.nodes.processes.count:
            self.encoder.spread(processes)

    def forward(self) -> Tensor:
        """Return the vectors of all nodes."""
        if torch.compiler.is_exporting():
            return self.encoder.propagate()
        tensors = [*self.encoder.parameters(), *self.encoder.buffers()]
        moved = tuple((id(tensor), tensor._version, tensor.data_ptr()) for tensor in tensors)
        state = (moved, self.training, torch.is_grad_enabled())
        if self._vectors is None or state != self._state:
            self._vectors, self._state = self.encoder.propagate(), state
            if self._vectors.requires_grad:
                self._vectors.register_hook(self._forget)  # type: ignore[no-untyped-call]
        return self._vectors

    def _forget(self, gradient: Tensor) -> None:
        """The graph of this propagation is spent."""
        self._vectors = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_vectors": None}  # a copy propagates by itself
