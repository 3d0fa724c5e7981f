"""The interactions of a retrieval run: read, numbered, cut."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from recembed.errors import ConfigError, DataError
from recembed.evaluation import UserItems
from recembed.graph import GraphColumns, InteractionGraph
from recembed.graph.raw_ids import distinct_ids
from recembed.items.layout import ItemVectors
from recembed.run.data import open_data, reading_rows
from recembed.run.retrieval_config import RetrievalConfig
from recembed.run.retrieval_content import GraphContent
from recembed.run.retrieval_models import ContentEncoderConfig
from recembed.schema.feature import Feature, Schema

__all__ = ["RetrievalData", "graph_of", "open_interactions"]


@dataclass(frozen=True)
class RetrievalData:
    """Interactions by number, and what is known of items.

    Users and items are those of the training and validation rows, and items that have content alone where the model wants
    them ranked; ``graph`` names them by their raw ids.

    Attributes:
        config: The run's config with the data set's schema and split filled in.
        graph: All interactions but those of the test, in an order of nodes that propagates fast.
        train: The training interactions.
        valid: The validation interactions; None where the data have none.
        test: The test interactions of known users. Items that are only there are numbered behind the known ones.
        user, item: Names of the features.
        unknown_users: Test users without any training row, whom nothing can be recommended to.
        unknown_items: Items that are only in the test; they count as relevant, and are never found.
        name, origin: What the rows are called in tracking, and where they came from.
        content: Vectors of each source by item number, for a model that reads content.
        items_without: Items without a vector, by source.
    """

    config: RetrievalConfig
    graph: InteractionGraph
    train: UserItems
    valid: UserItems | None
    test: UserItems
    user: str
    item: str
    unknown_users: int
    unknown_items: int
    name: str
    origin: str
    content: Mapping[str, ItemVectors] = field(default_factory=dict)
    items_without: Mapping[str, int] = field(default_factory=dict)

    @property
    def known(self) -> UserItems:
        """All interactions but those of the test."""
        return self.train if self.valid is None else self.train.joined(self.valid)

    @property
    def judged(self) -> UserItems | None:
        """The validation interactions of users whom the training part knows; of the others nothing could be learned.

        Raises:
            DataError: the training part knows none of them.
        """
        if self.valid is None:
            return None
        known = (self.train.counts > 0)[self.valid.users]
        if not known.any():
            raise DataError(
                "no user of the validation part is in the training part; check the split, or leave valid out"
            )
        users, items = self.valid.users[known], self.valid.items[known]
        return UserItems(users, items, num_users=self.valid.num_users, num_items=self.valid.num_items)

    def digest(self) -> str:
        """Return the SHA-256 of all ids and interactions, in hex."""
        digest = hashlib.sha256()
        for ids in (self.graph.user_ids, self.graph.item_ids):
            digest.update("\x1f".join(ids.cast(pl.String)).encode())
        for part in (self.train, self.valid, self.test):
            digest.update(b"" if part is None else np.ascontiguousarray(part.keys).tobytes())
        for found in self.content.values():
            digest.update(np.ascontiguousarray(found.matrix[found.present]).tobytes())
        return digest.hexdigest()


def open_interactions(config: RetrievalConfig) -> RetrievalData:
    """Read the interactions of a run.

    Raises:
        ConfigError: no feature has role ``user`` or ``item``.
        DataError: a file or column is missing, a row has no id, or there is no interaction to train on or to test.
    """
    rows = config.rows()
    with reading_rows(rows):
        data = open_data(rows, labels=False)
        user, item = _feature(data.schema, "user", data.name), _feature(data.schema, "item", data.name)
        columns = GraphColumns(user=user.source, item=item.source)
        parts = {name: columns.read(frame) for name, frame in data.splits.items()}
    for name in ("train", "test"):
        if not parts[name].height:
            raise DataError(f"data {data.name!r}: the {name} part has no interaction; check the split and data.where")
    known = pl.concat([parts["train"], parts["valid"]])
    model = config.model
    content = None
    if isinstance(model, ContentEncoderConfig):
        content = GraphContent.read(model, config.data.dataset, columns.item)
    items = distinct_ids(known[columns.item])
    items = content.item_ids(items) if content else items
    ids = {"user_ids": distinct_ids(known[columns.user]), "item_ids": items}
    graph = InteractionGraph.from_frame(known, columns, **ids).for_locality()
    train = _numbered(graph, parts["train"], columns)
    valid = _numbered(graph, parts["valid"], columns) if parts["valid"].height else None
    test, unknown_users, unknown_items = _test(graph, parts["test"], columns)
    effective = config.model_copy(update={"schema_": data.schema, "split": data.config.split})
    names = {"user": user.name, "item": item.name, "name": data.name, "origin": data.origin}
    found = content.of(graph) if content else {}
    return RetrievalData(
        effective,
        graph,
        train,
        valid,
        test,
        unknown_users=unknown_users,
        unknown_items=unknown_items,
        **names,
        content=found,
        items_without={name: int((~vectors.present).sum()) for name, vectors in found.items()},
    )


def graph_of(data: RetrievalData, interactions: UserItems) -> InteractionGraph:
    """Return the graph of all users and items with these interactions only."""
    edges = InteractionGraph.of(
        interactions.users,
        interactions.items,
        num_users=data.graph.num_users,
        num_items=data.graph.num_items,
    ).edges
    return replace(data.graph, edges=edges, types={})


def _feature(schema: Schema, role: str, name: str) -> Feature:
    feature = schema.role("user" if role == "user" else "item")
    if feature is None:
        raise ConfigError(f"data {name!r}: no feature has role {role!r}; give one under schema.features")
    return feature


def _numbered(graph: InteractionGraph, rows: pl.DataFrame, columns: GraphColumns) -> UserItems:
    users, items = graph.users_of(rows[columns.user]), graph.items_of(rows[columns.item])
    return UserItems(users, items, num_users=graph.num_users, num_items=graph.num_items)


def _test(graph: InteractionGraph, rows: pl.DataFrame, columns: GraphColumns) -> tuple[UserItems, int, int]:
    """Return the test interactions of known users, and the count of unknown users and items."""
    users, items = graph.users_of(rows[columns.user]), graph.items_of(rows[columns.item])
    new_users = rows[columns.user].filter(pl.Series(users < 0)).n_unique()
    if new_users and not (users >= 0).any():
        raise DataError("no user of the test part is in the training part; check the split: users must be in both")
    fresh = rows[columns.item].filter(pl.Series(items < 0))
    new_items = fresh.n_unique()
    items = items.copy()
    items[items < 0] = graph.num_items + fresh.rank("dense").to_numpy().astype(np.int64) - 1
    kept = users >= 0
    total = graph.num_items + new_items
    return UserItems(users[kept], items[kept], num_users=graph.num_users, num_items=total), new_users, new_items
