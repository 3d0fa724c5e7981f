"""LIRDRec: items from their content alone, users who weigh the streams of it, and a graph under both.

Axes: ``N`` nodes, ``U`` users, ``I`` items, ``K`` streams (the sources, and one of all of them), ``D`` width of a stream,
``C`` width of a source, ``H`` hidden width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.graph.adjacency import Adjacency
from recembed.graph.encoder import GraphEncoder
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.node_vectors import NodeVectors
from recembed.graph.propagation import mean_of_powers
from recembed.items.cosine_transform import cosine_transform
from recembed.items.item_graph import ItemGraph
from recembed.items.layout import ItemVectors
from recembed.items.source_vectors import sources_of
from recembed.tables.parameters import uniform_parameter

__all__ = ["LIRDRec", "copying_weight"]

_DECAY, _SLOPE = 0.9, 0.01


class LIRDRec(GraphEncoder):
    """Item streams ``W2 LeakyReLU(W1 f + b)``, each block of unit norm; layers of LightGCN summed; users weigh blocks.

    The streams are the sources and a shared one, which reads the cosine transforms of all sources side by side. Users
    have a free block per stream. Their weights are a softmax over ``w1 · scorer + w2 · θ``; at the start of each epoch
    ``θ`` becomes the weights of before and ``w1`` shrinks (progressive weight copying; see ``copying_weight``), which
    hands the weights over from the scorers to ``θ`` and, as each copy flattens them, towards equal ones. Items are not
    weighed; they add their neighbours' in the frozen graph of items. No parameter belongs to an item, so the weights
    serve any catalogue: build the encoder over a graph that holds the new items too, and load them.

    Args:
        graph: Users, items and edges.
        content: Vectors of each source by item number.
        embedding_dim: Width of a stream; the vectors have one such block per stream.
        hidden: Width of the streams' hidden layers.
        layers: Hops over the graph of users and items.
        neighbours: Of an item in the graph of items, in each source.
        weights: Of the sources in the graph of items; None weighs them alike.
        scorer_weight: ``w1`` of the first epoch; ``w2`` is what is left to 1.
        seed: Of fresh weights.

    Raises:
        ConfigError: a number is out of range. DataError: vectors cannot be used.

    Reference:
        Zhou et al., Learning Item Representations Directly from Multimodal Features for Effective Recommendation, 2025,
        and the released code. Differs from the code: representations are those of the current weights at evaluation and
        where weights are copied (there: of the last training step); ``θ`` is no parameter; the transform is folded into
        the shared stream's first matrix, of which it is a rotation; content is brought to mean 0 and one scale; an item
        is no neighbour of itself; what the graph of items adds is the items' blocks as they were before the layers; the
        regulariser is on the batch's vectors.

    >>> found = ItemVectors(torch.eye(3, 5).numpy(), torch.ones(3, dtype=torch.bool).numpy(), "a")
    >>> graph = InteractionGraph.of([0, 1, 1], [0, 1, 2])
    >>> users, items = LIRDRec(graph, {"image": found, "text": found}, 64, neighbours=2)()
    >>> users.shape, items.shape
    (torch.Size([2, 192]), torch.Size([3, 192]))
    """

    def __init__(
        self,
        graph: InteractionGraph,
        content: Mapping[str, ItemVectors],
        embedding_dim: int = 64,
        *,
        hidden: int = 256,
        layers: int = 2,
        neighbours: int = 10,
        weights: Mapping[str, float] | None = None,
        scorer_weight: float = 0.9,
        seed: int = 0,
    ) -> None:
        self.streams = len(content) + 1
        super().__init__(graph, self.streams * embedding_dim)
        for name, number in (("embedding_dim", embedding_dim), ("hidden", hidden), ("layers", layers)):
            if number < 1:
                raise ConfigError(f"{name} = {number}: expected at least 1")
        if not 0 <= scorer_weight <= 1:
            raise ConfigError(f"scorer_weight = {scorer_weight}: expected 0..1")
        self.layers, self.scorer_weight = layers, scorer_weight
        self.sources = sources_of(content, graph.num_items)
        self.item_graph, self.adjacency = ItemGraph(self.sources, neighbours, weights), Adjacency(graph)
        self.users = NodeVectors(graph.num_users, self.embedding_dim, init="xavier", seed=seed)
        widths = [found.matrix.shape[1] for found in content.values()]
        self.networks = nn.ModuleList(
            _Stream(width, hidden, embedding_dim, "lirdrec", number, seed)
            for number, width in enumerate([*widths, sum(widths)])
        )
        self.scorers = nn.ModuleList(
            _Stream(embedding_dim, 16, 1, "lirdrec scorer", number, seed) for number in range(self.streams)
        )
        for number, width in enumerate(widths):
            self.register_buffer(f"transform_{number}", cosine_transform(width), persistent=False)
        self.register_buffer("copied", torch.full((graph.num_users, self.streams), 1 / self.streams))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def start_epoch(self, epoch: int) -> None:
        """Copy the users' weights and let the scorers count for less; nothing happens twice in an epoch."""
        epochs = self.get_buffer("epochs")
        if epoch != int(epochs):
            self.get_buffer("copied").copy_(self.user_weights())
            epochs.fill_(epoch)

    def propagate(self) -> Tensor:
        """Return ``[N, K D]``."""
        own = self._item_blocks()  # [I, K D]
        users, items = self._smooth(own)
        weighed = users * self._weights(users).unsqueeze(2)  # [U, K, D]
        return torch.cat([weighed.flatten(1), items + self.item_graph(own)])

    def rows(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the final vectors of ``nodes``, twice: they are also what is regularised."""
        vectors = self.propagate().index_select(0, nodes)
        return vectors, vectors

    def user_weights(self) -> Tensor:
        """Return how much each user makes of each stream, ``[U, K]``; a row sums up to 1."""
        return self._weights(self._smooth(self._item_blocks())[0])

    def _item_blocks(self) -> Tensor:
        found = [source() for source in self.sources.values()]
        shared = self.networks[-1]
        assert isinstance(shared, _Stream)
        parts = shared.inner.split_with_sizes([vectors.shape[1] for vectors in found], dim=1)
        turned = torch.cat([part @ self.get_buffer(f"transform_{i}") for i, part in enumerate(parts)], dim=1)  # [H, ΣC]
        blocks = [network(vectors) for network, vectors in zip(self.networks, found, strict=False)]
        blocks.append(shared(torch.cat(found, dim=1), turned))
        return torch.cat([F.normalize(block, dim=1) for block in blocks], dim=1)

    def _smooth(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return users ``[U, K, D]`` and items ``[I, K D]``, the sum of all layers."""
        blocks = self.users().view(self.num_users, self.streams, -1)
        vectors = torch.cat([F.normalize(blocks, dim=2).flatten(1), items])  # [N, K D]
        a = self.adjacency
        mean = mean_of_powers(vectors, a.pointers, a.neighbours, a.weights, a.transposed_weights, self.layers)
        users, smooth = (mean * (self.layers + 1)).split_with_sizes([self.num_users, self.num_items])
        return users.view(blocks.shape), smooth

    def _weights(self, users: Tensor) -> Tensor:
        logits = torch.cat([scorer(users[:, k]) for k, scorer in enumerate(self.scorers)], dim=1)  # [U, K]
        share = copying_weight(self.scorer_weight, int(self.get_buffer("epochs")))
        return torch.softmax(share * logits + (1 - share) * self.get_buffer("copied"), dim=1)


def copying_weight(start: float, epochs: int) -> float:
    """Return ``w1`` after so many epochs, each of which multiplies it by ``0.9^epoch`` and brings ``w1 + w2`` to 1.

    >>> [round(copying_weight(0.9, epochs), 3) for epochs in (0, 5, 10, 14)]
    [0.9, 0.649, 0.027, 0.0]
    """
    left = start * _DECAY ** (epochs * (epochs + 1) / 2)
    return left / (left + 1 - start) if start < 1 else 1.0


class _Stream(nn.Module):
    """``W2 LeakyReLU(W1 x + b)``."""

    def __init__(self, width: int, hidden: int, output: int, *words: str | int) -> None:
        super().__init__()
        self.inner = uniform_parameter((hidden, width), (2 / (width + hidden)) ** 0.5, *words, "inner")
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.outer = uniform_parameter((output, hidden), (2 / (hidden + output)) ** 0.5, *words, "outer")

    def forward(self, inputs: Tensor, inner: Tensor | None = None) -> Tensor:
        """Return ``[n, output]``; ``inner`` stands in for ``W1``."""
        hidden = F.leaky_relu(F.linear(inputs, self.inner if inner is None else inner, self.bias), _SLOPE)
        return F.linear(hidden, self.outer)
