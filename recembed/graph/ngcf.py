"""NGCF: messages along the edges, transformed and multiplied with the receiver, layer by layer.

Axes: ``N`` nodes, ``d`` width of a layer, ``D`` width of all layers side by side.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.graph.adjacency import Adjacency, Normalisation
from recembed.graph.encoder import GraphEncoder
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.message_layer import message_layer
from recembed.graph.node_slice import NodeSlice
from recembed.graph.node_vectors import NodeVectors
from recembed.graph.unit_rows import unit_rows
from recembed.rows.processes import Processes

__all__ = ["NGCF"]


class NGCF(GraphEncoder):
    """Layers of ``LeakyReLU`` (slope 0.2) over what the neighbours send; all layers side by side are the vector.

    With ``m`` what a node receives, ``e`` its own vector:

    * ``paper``: ``e' = LeakyReLU((m + e) W1 + (m ⊙ e) W2)``, ``m = D^-1/2 A D^-1/2 e``; no bias.
    * ``code``: ``e' = LeakyReLU(m W1 + b1) + LeakyReLU((m ⊙ e) W2 + b2)``, ``m = (D+I)^-1 (A+I) e`` by default
      (``adjacency: row`` is ``D^-1 A``): the loop is in ``m``, so also in the product.

    In both, as in the code, a layer's output is dropped out, its L2-normalised copy joins the result and the copy
    that is not normalised is propagated (the paper concatenates without normalising: ``normalise=False``).

    Args:
        graph: Users, items and edges; ``graph.for_locality()`` is the fast order.
        embedding_dim: Width of layer 0.
        layers: Widths of the layers; none is matrix factorisation.
        form: ``paper`` or ``code``, as above.
        adjacency: Of the code form: ``row_loops`` (its default) or ``row``.
        message_dropout: Share of the numbers of a layer's output left out in training.
        node_dropout: Share of the edges left out of a training step, both directions at once.
        normalise: Lay L2-normalised outputs side by side.
        base: What is propagated, a module that returns ``[N, embedding_dim]``; None takes free vectors (Xavier).
        seed: Of the free vectors and the matrices.

    Raises:
        ConfigError: a number is out of range.

    Reference:
        Wang et al., Neural Graph Collaborative Filtering, SIGIR 2019, equations 3-8, and the released code.

    >>> users, items = NGCF(InteractionGraph.of([0, 1], [0, 1]), 4, layers=[4, 3])()
    >>> users.shape, items.shape
    (torch.Size([2, 11]), torch.Size([2, 11]))
    """

    def __init__(
        self,
        graph: InteractionGraph,
        embedding_dim: int = 64,
        layers: Sequence[int] = (64, 64, 64),
        *,
        form: Literal["paper", "code"] = "code",
        adjacency: Literal["row_loops", "row"] = "row_loops",
        message_dropout: float = 0.1,
        node_dropout: float = 0.0,
        normalise: bool = True,
        base: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, embedding_dim + sum(layers))
        for name, share in (("message_dropout", message_dropout), ("node_dropout", node_dropout)):
            if not 0 <= share < 1:
                raise ConfigError(f"{name} = {share}: expected 0 or more and less than 1")
        if any(width < 1 for width in layers):
            raise ConfigError(f"layers = {list(layers)}: expected widths of at least 1")
        if form not in ("paper", "code"):
            raise ConfigError(f"form = {form!r}: expected paper or code")
        self.form, self.normalise = form, normalise
        self.message_dropout, self.node_dropout = message_dropout, node_dropout
        self.base = base or NodeVectors(graph.num_nodes, embedding_dim, init="xavier", seed=seed)
        matrix: Normalisation = "symmetric" if form == "paper" else "row"
        loops = form == "code" and adjacency == "row_loops"
        self.adjacency = Adjacency(graph, matrix, self_loops=loops)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pairs = pairwise([embedding_dim, *layers])
            self.layers = nn.ModuleList(_Layer(width, wider, bias=form == "code") for width, wider in pairs)

    def propagate(self) -> Tensor:
        """Return ``[N, D]``."""
        return self.nodes.whole(torch.cat(self._outputs(None), dim=1))

    def spread(self, processes: Processes) -> None:
        """Cut the adjacency and free vectors; a base of another kind stays whole, its propagation is spread."""
        self.nodes = NodeSlice(self.nodes.num_nodes, processes, self.adjacency.pointers).cut(self.base, self.adjacency)

    def rows(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the final vectors of ``nodes``, twice: they are also what is regularised.

        The last layer and the normalising are computed for ``nodes`` alone.
        """
        vectors = torch.cat(self._outputs(nodes), dim=1)
        return vectors, vectors

    def by_layer(self) -> list[Tensor]:
        """Return what stands side by side, layer 0 first."""
        return self._outputs(None) if len(self.layers) else []

    def _outputs(self, nodes: Tensor | None) -> list[Tensor]:
        vectors = self.nodes.of(self.base())  # [N, d]
        outputs = [vectors]
        weights = self.adjacency.drop_edges(self.node_dropout) if self.training else None
        rate = self.message_dropout if self.training else 0.0
        for place, layer in enumerate(self.layers, start=1):
            received = self.adjacency(vectors, weights)  # [N, d]
            if place == len(self.layers):
                outputs = [_pick(output, nodes) for output in outputs]
                received, vectors = _pick(received, nodes), outputs[-1]
            vectors = layer(received, vectors, rate)
            outputs.append(vectors)
        if not len(self.layers):
            return [_pick(vectors, nodes)]
        if self.normalise:
            outputs[1:] = [unit_rows(output) for output in outputs[1:]]
        return outputs


def _pick(vectors: Tensor, nodes: Tensor | None) -> Tensor:
    return vectors if nodes is None else vectors.index_select(0, nodes)


class _Layer(nn.Module):
    """The matrices of one layer, biases included, drawn by Xavier's law as the authors' code does."""

    def __init__(self, width: int, wider: int, *, bias: bool) -> None:
        super().__init__()
        self.sums, self.products = nn.Linear(width, wider, bias=bias), nn.Linear(width, wider, bias=bias)
        for linear in (self.sums, self.products):
            nn.init.xavier_uniform_(linear.weight)
            if bias:
                nn.init.xavier_uniform_(linear.bias.data.view(1, -1))

    def forward(self, received: Tensor, vectors: Tensor, rate: float) -> Tensor:
        """Return the vectors after the layer; see ``message_layer``."""
        own, product = self.sums, self.products
        return message_layer(received, vectors, (own.weight, own.bias), (product.weight, product.bias), rate)
