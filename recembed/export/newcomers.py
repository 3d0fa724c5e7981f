"""Users and items that came after the training, added to a pair of bundles by one hop, each marked as such.

Axes: ``n`` new ids of a side, ``N`` trained ids of the other, ``D`` width.
"""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from recembed.errors import DataError
from recembed.export.manifest import Manifest
from recembed.export.retrieval import export_sides
from recembed.export.sides import NEIGHBOURS, SIDES, TRAINED, Side, read_side
from recembed.export.verify import GOLDEN_FILE
from recembed.graph import GraphColumns
from recembed.graph.inductive import one_hop
from recembed.graph.raw_ids import distinct_ids, places_of

__all__ = ["add_newcomers"]


def add_newcomers(
    folder: Path | str, interactions: pl.DataFrame | pl.LazyFrame, out: Path | str | None = None
) -> dict[str, Manifest]:
    """Give users and items without a trained vector one from their neighbours, in the bundles of a retrieval run.

    A new user's vector is ``Σ v_i / sqrt(degree(u) degree(i))`` over the trained items it met, a new item's likewise
    over users: one hop of LightGCN, the trained vectors left as they are. In ``vectors.parquet`` such rows stand after
    the others, with ``provenance`` ``neighbours`` (the others: ``trained``) and a ``training_count`` of 0; the space id
    stays, for they may be compared with all the others. A newcomer that is there already is computed anew.

    Where served scores put popularity back (``prior`` of the sampled softmax), a new user gets the 1 that goes with it,
    and a new item the number of the trained item whose training interactions are nearest to its own.

    Args:
        folder: What ``recembed export`` made of a retrieval run.
        interactions: Those of newcomers, by raw id, in columns named as the bundles' ids; rows of two trained ids, or
            of two newcomers, tell nothing and are left out.
        out: Where the new bundles go; None replaces those in ``folder``.

    Raises:
        DataError: a column is missing, or nobody new has met anyone trained.
        ExportError: the bundles are damaged, or ``out`` exists.
    """
    folder = Path(folder)
    manifests = {side: Manifest.read(folder / side) for side in SIDES}
    for side, manifest in manifests.items():
        manifest.check_files(folder / side)
    users, items = (read_side(folder / side) for side in SIDES)
    rows = GraphColumns(user=users.name, item=items.name).read(interactions)
    run = manifests["users"].run
    more_users = _grown(users, items.trained(), rows, run)
    more_items = _grown(items, users.trained(), rows, run)
    if more_users is users and more_items is items:
        raise DataError(f"no new {users.name} or {items.name} among {rows.height} interactions has a trained neighbour")
    return export_sides(
        more_users,
        more_items,
        out or folder,
        golden=pl.read_parquet(folder / "users" / GOLDEN_FILE),
        metric=manifests["items"].metric,
        run=run,
        faiss=(folder / "items" / "vectors.faiss").is_file(),
        overwrite=out is None,
    )


def _grown(side: Side, other: Side, rows: pl.DataFrame, run: dict[str, object]) -> Side:
    """Return the side with its newcomers at the end, or itself where nobody new has a trained neighbour."""
    trained = side.trained()
    rows = rows.filter(pl.Series(places_of(rows[side.name], trained.ids) < 0))
    if not rows.height:
        return side
    fresh = distinct_ids(rows[side.name])
    pairs = np.stack([places_of(rows[side.name], fresh), places_of(rows[other.name], other.ids)], axis=1)
    extra = 1 if run.get("prior") else 0
    width = other.vectors.shape[1] - extra
    vectors, met = one_hop(
        pairs[pairs[:, 1] >= 0], len(fresh), torch.from_numpy(other.vectors[:, :width].copy()), other.counts
    )
    if not met.any():
        return side
    if extra:
        vectors = _with_prior(vectors, trained, met, unit=bool(run.get("cosine")))
    some = met > 0
    ids = fresh.filter(pl.Series(some)).cast(side.ids.dtype)
    stays = pl.Series(places_of(side.ids, ids) < 0)  # one that was added before makes room
    marks = pl.Series([TRAINED] * len(side.ids)) if side.provenance is None else side.provenance
    return Side(
        side.name,
        pl.concat([side.ids.filter(stays), ids.alias(side.ids.name)]),
        np.concatenate([side.vectors[stays.to_numpy()], vectors.numpy()[some]]),
        np.concatenate([side.counts[stays.to_numpy()], np.zeros(len(ids), side.counts.dtype)]),
        pl.concat([marks.filter(stays), pl.Series([NEIGHBOURS] * len(ids))]),
    )


def _with_prior(vectors: Tensor, trained: Side, met: np.ndarray, *, unit: bool) -> Tensor:
    """Return vectors with the last number that served scores have: that of the trained row with the nearest count."""
    order = np.argsort(trained.counts, kind="stable")
    counts = trained.counts[order]
    above = np.minimum(np.searchsorted(counts, met), len(counts) - 1)
    below = np.maximum(above - 1, 0)
    nearest = np.where(met - counts[below] < counts[above] - met, below, above)
    last = torch.from_numpy(trained.vectors[order[nearest], -1:].copy())
    return torch.cat([F.normalize(vectors, dim=1) if unit else vectors, last], dim=1)
