"""What each layer of a graph encoder is worth, and how well its vectors give the training graph back.

Axes: ``N`` nodes, users first; ``d`` width of a layer.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recembed.evaluation import UserItems, evaluate_ranking
from recembed.graph import InteractionGraph, hop_distances, reconstruction_map
from recembed.graph.encoder import GraphEncoder
from recembed.retrieval import RetrievalTrainer

__all__ = ["layer_metrics", "reconstruction"]

_USERS, _NODES, _HOPS = 4096, 256, 3


@torch.no_grad()
def layer_metrics(
    trainer: RetrievalTrainer, encoder: GraphEncoder, relevant: UserItems, seen: UserItems, metric: str
) -> pl.DataFrame | None:
    """Rank by each layer alone and by all of them together, on the same users, 4,096 at most.

    Each layer is served as the loss serves the whole (see ``RetrievalLoss.served``).

    Returns:
        ``layer`` (0, 1, … and ``all``), the mean ``value`` of the metric, its ``standard_error``, and ``users``; None
        for an encoder whose layers cannot be told apart.
    """
    layers = encoder.eval().by_layer()
    if not layers:
        return None
    some = _sampled(relevant, trainer.config.seed)
    rows = []
    length = int(metric.partition("@")[2])
    for name, layer in zip([*map(str, range(len(layers))), "all"], [*layers, None], strict=True):
        users, items = trainer.vectors() if layer is None else _served(trainer, layer, encoder.num_users)
        values = evaluate_ranking(users, items, some, seen=seen, k=[length]).per_user[metric]
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
        rows.append({"layer": name, "value": values.mean(), "standard_error": error, "users": len(values)})
    return pl.DataFrame(rows)


def _served(trainer: RetrievalTrainer, layer: Tensor, num_users: int) -> tuple[Tensor, Tensor]:
    return trainer.config.loss.served(layer[:num_users], layer[num_users:], trainer.step.log_drawn)


def _sampled(relevant: UserItems, seed: int) -> UserItems:
    who = np.flatnonzero(relevant.counts)
    if len(who) > _USERS:
        who = np.sort(np.random.default_rng((seed, 2)).choice(who, _USERS, replace=False))
    places, items = relevant.block(who)
    return UserItems(who[places], items, num_users=relevant.num_users, num_items=relevant.num_items)


@torch.no_grad()
def reconstruction(
    graph: InteractionGraph, encoder: GraphEncoder, seed: int, say: Callable[[str], None]
) -> dict[str, float]:
    """Return how well the cosines of vectors find the nodes 1, 2 and 3 hops away: ``hop_1``, …, and ``chance_1``, ….

    256 nodes with an edge are asked, drawn by the seed. Random vectors come to about ``chance``, the share of nodes at
    that distance: of a model that does not beat it, ``say`` is told.
    """
    degrees = np.concatenate([graph.edges.degrees, graph.edges.column_degrees])
    known = np.flatnonzero(degrees)
    asked = np.random.default_rng((seed, 3)).choice(known, min(_NODES, len(known)), replace=False)
    found = reconstruction_map(graph, encoder.eval().propagate(), most_hops=_HOPS, nodes=asked, cosine=True)
    distances = hop_distances(graph, asked[:64], _HOPS)
    chances = {f"chance_{hop}": float((distances == hop).mean()) for hop in found}
    if found[1] <= 2 * chances["chance_1"]:
        say("the vectors find neighbours hardly better than chance does: look at the loss and the learning rate")
    return {f"hop_{hop}": value for hop, value in found.items()} | chances
