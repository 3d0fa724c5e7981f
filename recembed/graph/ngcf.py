"""NGCF: messages along the edges, transformed and multiplied with the receiver, layer by layer.

Axes: ``N`` nodes, ``d`` width of a layer, ``D`` width of all layers side by side.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.graph.adjacency import Adjacency, Normalisation
from recembed.graph.encoder import GraphEncoder
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.node_vectors import NodeVectors

__all__ = ["NGCF"]

_SLOPE = 0.2


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
        widths = [embedding_dim, *layers]
        bias = form == "code"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pairs = list(pairwise(widths))
            self.sums = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairs)
            self.products = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairs)
            for linear in [*self.sums, *self.products]:
                _draw(linear)
        self._final: Tensor | None = None

    def propagate(self) -> Tensor:
        """Return ``[N, D]``."""
        vectors: Tensor = self.base()  # [N, d]
        outputs = [vectors]
        weights = self.adjacency.drop_edges(self.node_dropout) if self.training else None
        for summed, multiplied in zip(self.sums, self.products, strict=True):
            received = self.adjacency(vectors, weights)  # [N, d]
            if self.form == "code":
                sides = F.leaky_relu(summed(received), _SLOPE), F.leaky_relu(multiplied(received * vectors), _SLOPE)
                vectors = sides[0] + sides[1]
            else:
                vectors = F.leaky_relu(summed(received + vectors) + multiplied(received * vectors), _SLOPE)
            vectors = F.dropout(vectors, self.message_dropout, self.training)
            outputs.append(F.normalize(vectors, dim=1) if self.normalise else vectors)
        self._final = torch.cat(outputs, dim=1)  # [N, D]
        return self._final

    def penalty(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return ``½ Σ‖row‖² / B`` of the final rows, as the authors' code does."""
        vectors = self.propagate() if self._final is None else self._final
        return self._mean_square(vectors, users, positives, negatives)


def _draw(linear: nn.Module) -> None:
    for name, parameter in linear.named_parameters():
        if name == "bias":
            nn.init.xavier_uniform_(parameter.data.view(1, -1))  # the code draws its biases too
        else:
            nn.init.xavier_uniform_(parameter)
