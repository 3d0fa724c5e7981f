"""What is propagated: one vector per node, from anywhere.

A base is any module that returns ``[N, D]`` without arguments, users first: free parameters (``NodeVectors``), given
vectors (``GivenVectors``), or the tables of two features (see ``recembed.embedding``).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.graph.node_slice import NodeSlice
from recembed.rows.piece import hold_rows

__all__ = ["GivenVectors", "NodeVectors"]


class NodeVectors(nn.Module):
    """A free vector for every node.

    Args:
        num_nodes: Users and items together.
        embedding_dim: Width.
        init: ``normal`` draws from N(0, 0.1) as LightGCN does, ``xavier`` uniformly as NGCF does.
        seed: The vectors depend on it alone.
    """

    def __init__(
        self, num_nodes: int, embedding_dim: int, *, init: Literal["normal", "xavier"] = "normal", seed: int = 0
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ConfigError(f"embedding_dim = {embedding_dim}: expected at least 1")
        self.embedding_dim = embedding_dim
        self.init, self.seed = init, seed
        self.weight = nn.Parameter(torch.empty(num_nodes, embedding_dim))
        self._draw()

    def _draw(self) -> None:
        if self.weight.is_meta:
            return
        generator = torch.Generator(self.weight.device).manual_seed(self.seed)
        if self.init == "normal":
            nn.init.normal_(self.weight, std=0.1, generator=generator)
        else:
            nn.init.xavier_uniform_(self.weight, generator=generator)

    def cut(self, nodes: NodeSlice) -> None:
        """Hold the vectors of these nodes alone, as they are; from now on ``forward`` returns theirs."""
        self.weight = nn.Parameter(nodes.of(self.weight.detach()).clone())
        hold_rows(self.weight, nodes.start, nodes.num_nodes)

    def forward(self) -> Tensor:
        """Return ``[N, D]``."""
        return self.weight


class GivenVectors(nn.Module):
    """Vectors from elsewhere (text, images, a trained model), fixed, or projected to a width by a learned matrix.

    Args:
        vectors: float32 ``[N, C]``, users first.
        embedding_dim: Width after the projection; None keeps the vectors as they are.
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor, embedding_dim: int | None = None) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors.float())
        self.embedding_dim = embedding_dim or vectors.shape[1]
        project = embedding_dim is not None
        self.projection = nn.Linear(vectors.shape[1], self.embedding_dim, bias=False) if project else nn.Identity()

    def forward(self) -> Tensor:
        """Return ``[N, D]``."""
        vectors: Tensor = self.projection(self.vectors)
        return vectors
