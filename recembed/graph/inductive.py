"""Vectors without training: hops of given vectors over the graph, and one hop for users or items that came later.

Axes: ``N`` nodes, users first; ``U`` users, ``I`` items, ``D`` width.
"""

from typing import Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recembed.errors import ConfigError, DataError
from recembed.graph.adjacency import Adjacency, Normalisation
from recembed.graph.columns import GraphColumns
from recembed.graph.interaction_graph import InteractionGraph
from recembed.graph.raw_ids import distinct_ids, places_of

__all__ = ["hops", "one_hop", "one_hop_update"]


@torch.no_grad()
def hops(
    graph: InteractionGraph, vectors: Tensor, count: int, normalisation: Normalisation = "symmetric"
) -> list[Tensor]:
    """Return ``[X, A X, …, A^count X]``, each ``[N, D]``: features of nodes that a plain network can learn from.

    Computed once, as in SIGN and in STAGE's propagation of text vectors; lay the hops side by side and give them to
    ``GivenVectors`` to learn a projection. Where only items have content, users are zero in ``X`` and get the hop of
    their items.

    Raises:
        ConfigError: ``count`` is below 0. DataError: there is not one vector per node.

    >>> [hop.flatten().tolist() for hop in hops(InteractionGraph.of([0], [0]), torch.tensor([[0.0], [2.0]]), 2)]
    [[0.0, 2.0], [2.0, 0.0], [0.0, 2.0]]
    """
    if count < 0:
        raise ConfigError(f"count = {count}: expected 0 hops or more")
    if len(vectors) != graph.num_nodes:
        raise DataError(f"{len(vectors)} vectors for {graph.num_nodes} nodes: expected those of users, then of items")
    adjacency, found = Adjacency(graph, normalisation), [vectors]
    for _ in range(count):
        found.append(adjacency(found[-1]))
    return found


@torch.no_grad()
def one_hop(
    pairs: NDArray[np.int64], count: int, vectors: Tensor, degrees: NDArray[np.int64]
) -> tuple[Tensor, NDArray[np.int64]]:
    """Return ``Σ v_i / sqrt(degree(u) degree(i))`` of each new node, and how many neighbours it has.

    Args:
        pairs: Place of a new node and of a neighbour, int64 ``[P, 2]``; a pair that stands twice counts once.
        count: New nodes, ``n``; one without a neighbour gets zeros.
        vectors: Of the neighbours, float32 ``[N, D]``.
        degrees: Of the neighbours, int64 ``[N]``; below 1 counts as 1.
    """
    pairs = np.unique(pairs, axis=0)
    node, neighbour = torch.from_numpy(pairs[:, 0].copy()), torch.from_numpy(pairs[:, 1].copy())
    counts = torch.bincount(node, minlength=count)
    weight = 1 / (counts[node] * torch.from_numpy(np.array(degrees))[neighbour].clamp(min=1)).sqrt().float()
    found = torch.zeros(count, vectors.shape[1]).index_add_(0, node, vectors.float()[neighbour] * weight[:, None])
    return found, counts.numpy()


@torch.no_grad()
def one_hop_update(
    graph: InteractionGraph,
    interactions: pl.DataFrame,
    vectors: Tensor,
    *,
    side: Literal["user", "item"] = "user",
    columns: GraphColumns | None = None,
) -> pl.DataFrame:
    """Return vectors of users (or items) that the graph does not know, from the neighbours it does know.

    A new user's vector is ``Σ v_i / sqrt(degree(u) degree(i))`` over the trained vectors of its items: one more hop of
    LightGCN, the trained nodes left as they are. Interactions with unknown neighbours are left out, and a node without
    a known one is not in the result.

    Args:
        graph: What was trained on.
        interactions: Those of the new nodes, by raw id.
        vectors: float32, of the other side: items ``[I, D]`` for new users.
        side: What is new.
        columns: Which column is what; None takes ``user_id`` and ``item_id``.

    Returns:
        Columns ``id``, ``vector``, ``neighbours`` (how many were known) and ``inductive``, which is true: nobody should
        take these for trained vectors.

    Raises:
        DataError: a node is in the graph already, or there is not one vector per node of the other side.
    """
    columns = columns or GraphColumns()
    rows = columns.read(interactions)
    own, other = (columns.user, columns.item) if side == "user" else (columns.item, columns.user)
    known, others = (graph.user_ids, graph.item_ids) if side == "user" else (graph.item_ids, graph.user_ids)
    degrees = graph.edges.column_degrees if side == "user" else graph.edges.degrees
    if len(vectors) != len(others):
        raise DataError(f"{len(vectors)} vectors for {len(others)} neighbours: give those of the other side")
    if (old := places_of(rows[own], known) >= 0).any():
        raise DataError(f"{side} {rows[own].filter(pl.Series(old))[0]!r} was trained: read its own vector")
    fresh = distinct_ids(rows[own])
    pairs = np.stack([places_of(rows[own], fresh), places_of(rows[other], others)], axis=1)
    found, counts = one_hop(pairs[pairs[:, 1] >= 0], len(fresh), vectors, degrees)
    some = counts > 0
    width = vectors.shape[1]
    return pl.DataFrame(
        {
            "id": fresh.filter(pl.Series(some)),
            "vector": pl.Series(found.numpy()[some], dtype=pl.Array(pl.Float32, width)),
            "neighbours": counts[some],
            "inductive": np.ones(int(some.sum()), bool),
        }
    )
