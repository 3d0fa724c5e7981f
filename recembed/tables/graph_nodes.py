"""``lightgcn`` and ``ngcf``: vectors of users and items, propagated over the graph of their interactions.

He et al., LightGCN, SIGIR 2020; Wang et al., NGCF, SIGIR 2019 (see ``recembed.graph``). Differs from the papers: the
vectors go into any model beside the other features, and train by its loss.
Axes: ``N`` ids of users and items together, ``B`` batch, ``D`` width of the vectors.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import nn

from recembed.errors import ConfigError
from recembed.graph import NGCF, GraphEncoder, InteractionGraph, LightGCN, load_graph
from recembed.graph.propagated import Propagated
from recembed.graph.raw_ids import places_of
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.graph_table import GraphTable, edges_digest
from recembed.tables.spec import TableSpec
from recembed.tables.table_vectors import TableVectors

__all__ = ["LightGCNConfig", "NGCFConfig"]


def _parse_base(raw: Any) -> TableConfig | None:
    from recembed.tables import parse_table  # the dictionary of kinds lists this file too

    if raw is None:
        return None
    config = parse_table(raw)
    if isinstance(config, _GraphConfig):
        raise ConfigError(f"base = {config.kind!r}: a graph cannot be propagated over a graph; name a plain method")
    return config


class _GraphConfig(TableConfig):
    """What the graph encoders have in common.

    One propagation a step serves both features and every history that shares their tables. First-order weights, and
    features that are neither the user nor the item, keep exact tables. Served are the propagated vectors, so an id that
    the graph does not know is served its own vector, and an unknown one that of out-of-vocabulary.

    Several processes hold and propagate a slice of the nodes each: their own vectors with the optimiser's states, their rows
    of the adjacency. The vectors of all are gathered layer by layer, and at last for the look-up. A ``base`` is
    copied to all of them, for its rows belong to no single node; its propagation is spread alike.

    Attributes:
        graph: Folder of the graph, as ``save_graph`` writes it, over raw ids. Build it from training rows alone.
        user: Feature of the users.
        item: Feature of the items.
        base: Method of the vectors that are propagated; None gives every id one of its own.
    """

    graph: Path
    user: str = "user_id"
    item: str = "item_id"
    base: Annotated[SerializeAsAny[TableConfig] | None, BeforeValidator(_parse_base)] = None

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build the views of user and item, over one encoder."""
        tables: dict[str, Table] = {spec.name: FullTable.of(spec) for spec in specs}
        if specs[0].linear:
            return tables
        named = {spec.name: spec for spec in specs}
        for name in (self.user, self.item):
            if name not in named:
                raise ConfigError(
                    f"table {self.kind!r}: no feature {name!r} has it; give user and item the same settings, and name "
                    "them as `user` and `item`"
                )
        users, items = named[self.user], named[self.item]
        if users.embedding_dim != items.embedding_dim:
            raise ConfigError(f"table {self.kind!r}: user and item differ in width")
        graph = self.read(users, items)
        sizes = graph.num_users, graph.num_items
        base = None if self.base is None else self._base([users, items], sizes, seed)
        shared = Propagated(self.encode(graph, users.embedding_dim, base, seed))
        digest = edges_digest(graph.edges)
        for spec, start in ((users, 0), (items, sizes[0])):
            tables[spec.name] = GraphTable(spec, shared, start, digest, counts=spec is users)
        return tables

    def read(self, users: TableSpec, items: TableSpec) -> InteractionGraph:
        """Return the graph over the ids of the vocabularies; ids that the graph lacks are nodes without an edge."""
        graph = load_graph(self.graph)
        numbers, sizes = [], []
        for spec, known in ((users, graph.user_ids), (items, graph.item_ids)):
            size = spec.known_ids(self.kind)
            if spec.values is None:
                raise ConfigError(f"feature {spec.name!r}: table {self.kind!r} needs its raw ids; set vocabulary: true")
            places = places_of(spec.values.rename(spec.name), known)
            number: NDArray[np.int64] = np.full(len(known), -1)
            number[places[places >= 0]] = spec.reserved_ids + np.flatnonzero(places >= 0)
            numbers.append(number)
            sizes.append(size)
        shape = sizes[0], sizes[1]
        edges = graph.edges.renumbered(numbers[0], numbers[1], shape)
        if not len(edges):
            raise ConfigError(
                f"table {self.kind!r}: the graph in {self.graph} has no edge between ids of {self.user!r} and "
                f"{self.item!r}; was it built from these columns?"
            )
        return InteractionGraph.over(edges)

    @abstractmethod
    def encode(self, graph: InteractionGraph, width: int, base: nn.Module | None, seed: int) -> GraphEncoder:
        """Return the encoder whose vectors are ``width`` wide."""

    def base_width(self, width: int) -> int:
        """Return the width of the vectors that are propagated, where those of the feature are ``width`` wide."""
        return width

    def _base(self, specs: Sequence[TableSpec], sizes: tuple[int, int], seed: int) -> nn.Module:
        assert self.base is not None
        width = self.base_width(specs[0].embedding_dim)
        built = self.base.build([replace(spec, embedding_dim=width) for spec in specs], seed)
        tables = [built[spec.name] for spec in specs]
        for table in tables:
            if table.embedding_dim != width:
                raise ConfigError(f"base = {self.base.kind!r}: its vectors are {table.embedding_dim} wide, not {width}")
        return TableVectors(tables, sizes, seed)


class LightGCNConfig(_GraphConfig):
    """The mean of ``layers + 1`` hops; bytes as the base's (and the graph's while training).

    Attributes:
        layers: Hops; 0 is the base alone.
        edge_dropout: Share of the edges left out of a training step.
    """

    kind: Literal["lightgcn"] = "lightgcn"
    layers: Annotated[int, Field(ge=0, le=16)] = 3
    edge_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def encode(self, graph: InteractionGraph, width: int, base: nn.Module | None, seed: int) -> GraphEncoder:
        """Return LightGCN."""
        return LightGCN(graph, width, self.layers, base=base, edge_dropout=self.edge_dropout, seed=seed)


class NGCFConfig(_GraphConfig):
    """``layers`` transformed layers beside the base, each as wide as the feature allows: together its width.

    Attributes:
        layers: Layers.
        form: ``paper`` or ``code``, see ``recembed.graph.NGCF``.
        message_dropout: Share of the numbers of a layer left out in training.
        node_dropout: Share of the edges left out of a training step.
    """

    kind: Literal["ngcf"] = "ngcf"
    layers: Annotated[int, Field(ge=0, le=16)] = 3
    form: Literal["paper", "code"] = "code"
    message_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    node_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def base_width(self, width: int) -> int:
        """Return the width of layer 0, which takes what the others leave."""
        return width - self.layers * (width // (self.layers + 1))

    def encode(self, graph: InteractionGraph, width: int, base: nn.Module | None, seed: int) -> GraphEncoder:
        """Return NGCF.

        Raises:
            ConfigError: there are more layers than numbers.
        """
        if width <= self.layers:
            raise ConfigError(f"layers = {self.layers}: vectors {width} wide cannot hold {self.layers + 1} of them")
        return NGCF(
            graph,
            self.base_width(width),
            [width // (self.layers + 1)] * self.layers,
            form=self.form,
            message_dropout=self.message_dropout,
            node_dropout=self.node_dropout,
            base=base,
            seed=seed,
        )
