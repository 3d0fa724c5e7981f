"""FREEDOM: LightGCN on a graph whose noisy edges are left out by chance, and items smoothed over a frozen graph of items.

Axes: ``N`` nodes, ``I`` items, ``E`` edges, ``D`` width, ``B`` pairs of a batch.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import floor

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.graph.adjacency import Adjacency
from recembed.graph.edges import Edges
from recembed.graph.encoder import AuxiliaryVectors, BatchVectors, GraphEncoder
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.node_vectors import NodeVectors
from recembed.graph.propagation import mean_of_powers
from recembed.items.item_graph import ItemGraph
from recembed.items.layout import ItemVectors
from recembed.items.met_items import MetItems
from recembed.items.source_vectors import sources_of
from recembed.tables.parameters import uniform_parameter

__all__ = ["Freedom", "keep_edges"]


class Freedom(GraphEncoder):
    """``users = mean(E, A E, …)``, ``items = mean(E, A E, …) + S^n E_items``: what is alike in content is alike.

    ``S`` is the frozen graph of nearest items (see ``ItemGraph``). While training, ``A`` holds a sample of the edges,
    drawn anew each epoch: edges between busy nodes are left out more often. Evaluation reads all edges. Each source's
    content, read by a matrix of its own, has to rank the positives too, by a loss of weight ``content_weight``.
    An item without any interaction has no vector of its own: its neighbours in content speak for it.

    Args:
        graph: Users, items and edges.
        content: Vectors of each source by item number.
        embedding_dim: Width of the vectors.
        layers: Hops over the graph of users and items.
        item_layers: Hops over the graph of items.
        neighbours: Of an item, in each source.
        weights: Of the sources in the graph of items; None weighs them alike.
        edge_dropout: Share of the edges left out in each epoch.
        content_weight: Of the loss on each source's content.
        seed: Of fresh vectors, and of the edges left out.

    Raises:
        ConfigError: a number is out of range. DataError: vectors cannot be used.

    Reference:
        Zhou and Shen, A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation, ACM
        MM 2023. Differs from the paper: an item is no neighbour of itself, cosines are those of vectors at mean 0,
        content stays frozen (the authors' code moves it), free vectors start from N(0, 0.1).

    >>> found = ItemVectors(np.eye(3, 5, dtype=np.float32), np.full(3, True), "a")
    >>> graph = InteractionGraph.of([0, 1, 1], [0, 1, 2])
    >>> users, items = Freedom(graph, {"image": found}, 4, neighbours=2, edge_dropout=0.5)()
    >>> users.shape, items.shape
    (torch.Size([2, 4]), torch.Size([3, 4]))
    """

    def __init__(
        self,
        graph: InteractionGraph,
        content: Mapping[str, ItemVectors],
        embedding_dim: int = 64,
        *,
        layers: int = 2,
        item_layers: int = 1,
        neighbours: int = 10,
        weights: Mapping[str, float] | None = None,
        edge_dropout: float = 0.8,
        content_weight: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, embedding_dim)
        for name, layer_count in (("layers", layers), ("item_layers", item_layers)):
            if layer_count < 1:
                raise ConfigError(f"{name} = {layer_count}: expected at least 1")
        if not 0 <= edge_dropout < 1:
            raise ConfigError(f"edge_dropout = {edge_dropout}: expected 0 or more and less than 1")
        self.layers, self.item_layers, self.seed = layers, item_layers, seed
        self.edge_dropout, self.content_weight = edge_dropout, content_weight
        self.graph = graph
        self.base = NodeVectors(graph.num_nodes, embedding_dim, seed=seed)
        self.met = MetItems(graph)
        self.sources = sources_of(content, graph.num_items)
        self.item_graph = ItemGraph(self.sources, neighbours, weights)
        self.adjacency = Adjacency(graph)
        self.sampled = self.adjacency
        self.start_epoch(0)
        widths = {name: found.matrix.shape[1] for name, found in content.items()}
        self.matrices = nn.ParameterDict(
            {
                name: uniform_parameter((embedding_dim, width), 0.1 * width**-0.5, "freedom", name, seed)
                for name, width in widths.items()
            }
        )

    def start_epoch(self, epoch: int) -> None:
        """Draw the edges that this epoch trains on; the same ones each time it is asked for."""
        if self.edge_dropout:
            kept = keep_edges(self.graph.edges, self.edge_dropout, np.random.default_rng((self.seed, epoch)))
            sampled = Adjacency(replace(self.graph, edges=kept, types={}))
            self.sampled = sampled.to(self.adjacency.weights.device)

    def propagate(self) -> Tensor:
        """Return ``[N, D]``."""
        return self._propagate(self._base())

    def rows(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the final vectors of ``nodes``, and their free vectors, which are regularised."""
        base = self._base()
        return self._propagate(base).index_select(0, nodes), base.index_select(0, nodes)

    def batch(self, users: Tensor, positives: Tensor, negatives: Tensor) -> BatchVectors:
        """Return the vectors of one step, and those of each source's content beside them."""
        read = super().batch(users, positives, negatives)
        if not self.content_weight:
            return read
        items, places = torch.unique(torch.cat([positives.flatten(), negatives.flatten()]), return_inverse=True)
        beside = []
        for name, source in self.sources.items():
            vectors = F.linear(source(items), self.matrices[name])[places]
            found, against = vectors.split_with_sizes([positives.numel(), negatives.numel()])
            found, against = found.view(*positives.shape, -1), against.view(*negatives.shape, -1)
            beside.append(AuxiliaryVectors(self.content_weight, read.users, found, against))
        return read._replace(auxiliary=tuple(beside))

    def _base(self) -> Tensor:
        users, items = self.base().split_with_sizes([self.num_users, self.num_items])
        return torch.cat([users, self.met(items)])

    def _propagate(self, base: Tensor) -> Tensor:
        a = self.sampled if self.training else self.adjacency
        mean = mean_of_powers(base, a.pointers, a.neighbours, a.weights, a.transposed_weights, self.layers)
        alike = base[self.num_users :]
        for _ in range(self.item_layers):
            alike = self.item_graph(alike)
        users, items = mean.split_with_sizes([self.num_users, self.num_items])
        return torch.cat([users, items + alike])


def keep_edges(edges: Edges, share: float, random: np.random.Generator) -> Edges:
    """Return ``floor(|E| (1 - share))`` edges, drawn without replacement in proportion to ``1 / sqrt(d_user d_item)``.

    Raises:
        ConfigError: no edge would be left.

    >>> edges = Edges.of(np.array([0, 0, 1]), np.array([0, 1, 1]), None, (2, 2))
    >>> len(keep_edges(edges, 0.3, np.random.default_rng(0)))
    2
    """
    count = floor(round(len(edges) * (1 - share), 6))
    if not count:
        raise ConfigError(f"edge_dropout = {share}: of {len(edges)} edges none is left; lower it")
    rows = edges.rows
    chances = -0.5 * (np.log(edges.degrees[rows]) + np.log(edges.column_degrees[edges.neighbours]))
    keys = chances + random.gumbel(size=len(edges))  # the largest are such a sample
    kept = np.sort(np.argpartition(-keys, count - 1)[:count])
    weights = None if edges.weights is None else edges.weights[kept]
    return Edges.of(rows[kept], edges.neighbours[kept], weights, edges.shape)
