"""``MetItems``: free vectors of items, zero for those that nobody has met in training.

Axes: ``I`` items, ``n`` items asked for, ``D`` width.
"""

import torch
from torch import Tensor, nn

from recembed.graph.interaction_graph import InteractionGraph

__all__ = ["MetItems"]


class MetItems(nn.Module):
    """Leaves out the free vectors of items without an edge: nothing was learned in them, and content is to speak.

    Args:
        graph: Whose edges tell who was met.
    """

    def __init__(self, graph: InteractionGraph) -> None:
        super().__init__()
        met = torch.from_numpy(graph.edges.column_degrees > 0).unsqueeze(1)
        self.all_met = bool(met.all())
        self.register_buffer("met", met, persistent=False)

    def forward(self, vectors: Tensor, items: Tensor | None = None) -> Tensor:
        """Return the vectors of the items asked for, ``[I, D]`` to ``[n, D]``; None asks for all."""
        met = self.get_buffer("met")
        if items is not None:
            vectors, met = vectors.index_select(0, items), met.index_select(0, items)
        return vectors if self.all_met else torch.where(met, vectors, 0.0)
