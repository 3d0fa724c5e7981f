"""VBPR: matrix factorisation whose items have a part of their own and a part read from their content.

Axes: ``U`` users, ``I`` items, ``n`` items asked for, ``D`` width of each part.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.graph.encoder import GraphEncoder
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.node_vectors import NodeVectors
from recembed.items.layout import ItemVectors
from recembed.items.met_items import MetItems
from recembed.items.source_vectors import sources_of
from recembed.tables.parameters import uniform_parameter

__all__ = ["VBPR"]


class VBPR(GraphEncoder):
    """``score = γ_u · γ_i + θ_u · Σ_s E_s f_is``: free vectors, and linear readings of each source's frozen vectors.

    A user is ``[γ_u, θ_u]``, an item ``[γ_i, Σ_s E_s f_is]``. An item without any interaction has no ``γ_i``: content
    alone speaks for it. Where all vectors are zero it is matrix factorisation.

    Args:
        graph: Users, items and edges; the edges tell who was met, nothing is propagated.
        content: Vectors of each source by item number.
        embedding_dim: Width of each of the two parts.
        seed: Of fresh vectors and matrices.

    Raises:
        ConfigError: there is no source. DataError: vectors cannot be used.

    Reference:
        He and McAuley, VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback, AAAI 2016, equation 4.
        Differs from the paper: any number of sources, brought to mean 0 and one scale, each with a matrix; no biases of
        users, items and features (as in MMRec), so the score stays an inner product of two vectors.

    >>> found = ItemVectors(torch.eye(2, 5).numpy(), torch.ones(2, dtype=torch.bool).numpy(), "a")
    >>> users, items = VBPR(InteractionGraph.of([0, 1], [0, 1]), {"image": found}, 4)()
    >>> users.shape, items.shape
    (torch.Size([2, 8]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        graph: InteractionGraph,
        content: Mapping[str, ItemVectors],
        embedding_dim: int = 64,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, 2 * embedding_dim)
        if embedding_dim < 1:
            raise ConfigError(f"embedding_dim = {embedding_dim}: expected at least 1")
        self.sources = sources_of(content, graph.num_items)
        self.users = NodeVectors(graph.num_users, 2 * embedding_dim, seed=seed)
        self.items = NodeVectors(graph.num_items, embedding_dim, seed=seed + 1)
        self.met = MetItems(graph)
        widths = [found.matrix.shape[1] for found in content.values()]
        std = 0.1 * sum(widths) ** -0.5  # the content part starts as wide as the free one
        self.matrix = uniform_parameter((embedding_dim, sum(widths)), std, "vbpr", seed)

    def propagate(self) -> Tensor:
        """Return ``[N, 2 D]``."""
        return torch.cat([self.users(), self._items(None)])

    def rows(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of ``nodes``, twice: they are also what is regularised."""
        cut = int((nodes < self.num_users).sum())
        vectors = torch.cat([self.users()[nodes[:cut]], self._items(nodes[cut:] - self.num_users)])
        return vectors, vectors

    def _items(self, items: Tensor | None) -> Tensor:
        own = self.met(self.items(), items)  # [n, D]
        content = torch.cat([source(items) for source in self.sources.values()], dim=1)
        return torch.cat([own, F.linear(content, self.matrix)], dim=1)
