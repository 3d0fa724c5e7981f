"""LightGCN: node vectors smoothed over the graph, no weights beside them.

Axes: ``N`` nodes, ``D`` width.
"""

from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.graph.adjacency import Adjacency
from recembed.graph.encoder import GraphEncoder
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.node_slice import NodeSlice
from recembed.graph.node_vectors import NodeVectors
from recembed.graph.propagation import mean_of_powers, rows_of_mean_of_powers
from recembed.rows.processes import Processes

__all__ = ["LightGCN"]


class LightGCN(GraphEncoder):
    """``E = mean(E0, A E0, …, A^L E0)`` with the symmetric adjacency ``A = D^-1/2 R D^-1/2``, no self loop.

    Without layers it is matrix factorisation.

    Args:
        graph: Users, items and edges; ``graph.for_locality()`` is the fast order.
        embedding_dim: Width of the vectors.
        layers: Hops over the graph, 0 or more.
        base: What is propagated, a module that returns ``[N, D]``; None takes free vectors of N(0, 0.1).
        edge_dropout: Share of the edges left out of a training step; the rest are scaled up.
        seed: Of the free vectors.

    Raises:
        ConfigError: a number is out of range.

    Reference:
        He et al., LightGCN, SIGIR 2020, equations 3-11. Edge dropout as in the authors' code, which drops the two
        directions of an edge apart; here they go together.

    >>> users, items = LightGCN(InteractionGraph.of([0, 1], [0, 1]), 4, layers=2)()
    >>> users.shape, items.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        graph: InteractionGraph,
        embedding_dim: int = 64,
        layers: int = 3,
        *,
        base: nn.Module | None = None,
        edge_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, embedding_dim)
        if layers < 0:
            raise ConfigError(f"layers = {layers}: expected 0 (matrix factorisation) or more")
        if not 0 <= edge_dropout < 1:
            raise ConfigError(f"edge_dropout = {edge_dropout}: expected 0 or more and less than 1")
        self.layers, self.edge_dropout = layers, edge_dropout
        self.base = base or NodeVectors(graph.num_nodes, embedding_dim, seed=seed)
        self.adjacency = Adjacency(graph) if layers else None

    def propagate(self) -> Tensor:
        """Return ``[N, D]``."""
        return self.nodes.whole(self._smooth(self.nodes.of(self.base())))

    def spread(self, processes: Processes) -> None:
        """Cut the adjacency and free vectors; a base of another kind stays whole, its propagation is spread."""
        pointers = self.adjacency.pointers if self.adjacency is not None else None
        self.nodes = NodeSlice(self.nodes.num_nodes, processes, pointers).cut(self.base, self.adjacency)

    def rows(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of ``nodes`` after all layers, and those of layer 0, which are regularised."""
        base: Tensor = self.base()  # [N, D]
        if self.adjacency is None:
            own = base.index_select(0, nodes)
            return own, own
        a = self.adjacency
        return rows_of_mean_of_powers(base, nodes, a.pointers, a.neighbours, *self._weights(a), self.layers)

    def by_layer(self) -> list[Tensor]:
        """Return ``[E0, A E0, …, A^L E0]``, each ``[N, D]``."""
        if self.adjacency is None:
            return []
        layers: list[Tensor] = [self.base()]
        for _ in range(self.layers):
            layers.append(self.adjacency(layers[-1]))
        return layers

    def _smooth(self, vectors: Tensor) -> Tensor:
        if self.adjacency is None:
            return vectors
        a = self.adjacency
        return mean_of_powers(vectors, a.pointers, a.neighbours, *self._weights(a), self.layers, a.processes)

    def _weights(self, adjacency: Adjacency) -> tuple[Tensor, Tensor]:
        dropped = adjacency.drop_edges(self.edge_dropout) if self.training else None
        return dropped or (adjacency.weights, adjacency.transposed_weights)
