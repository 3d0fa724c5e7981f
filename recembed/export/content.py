"""``content_vectors.parquet``: in the bundle of a feature with content, the items that training never saw.

Axes: ``N`` items, ``D`` width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recembed.embedding import FeatureEmbedding
from recembed.export.vectors import feature_vectors, vocabulary_to_export
from recembed.items.served import ServedItems
from recembed.schema.fitted import FittedSchema

__all__ = ["CONTENT_FILE", "NewItems", "read_new_items", "write_content_vectors"]

CONTENT_FILE = "content_vectors.parquet"


def write_content_vectors(embedding: FeatureEmbedding, fitted: FittedSchema, name: str, folder: Path) -> int:
    """Write the vectors of items that are known by their content alone, by raw id; return their number.

    They are no part of ``vectors.parquet``, whose rows are the vocabulary's; the served graph knows both.

    Args:
        embedding: The compact embedding.
        fitted: Its mapping.
        name: The exported feature; nothing is written where it has no content.
        folder: The bundle.
    """
    table = embedding.tables[embedding.schema[name].vocabulary_name]
    if not isinstance(table, ServedItems):
        return 0
    new = np.flatnonzero(~np.isin(table.items.keys, vocabulary_to_export(embedding, fitted, name).keys))
    keys = torch.from_numpy(table.items.keys[new]).to(embedding.device)
    vectors = feature_vectors(embedding, name, keys).cpu().numpy()  # [N, D]
    array = pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    columns = [table.items.ids.gather(new).alias(name), array, pl.Series("provenance", table.provenance(keys))]
    known = pl.DataFrame(columns).filter(pl.col("provenance") != "out_of_vocabulary")
    known.write_parquet(folder / CONTENT_FILE, compression="lz4")
    return known.height


@dataclass(frozen=True, eq=False)
class NewItems:
    """The items of a bundle that training never saw, in the order of the file.

    Attributes:
        ids: Raw ids, ``N`` of them; none where the bundle's feature has no content.
        vectors: float32 ``[N, D]``.
        provenance: Where each vector comes from.
    """

    ids: pl.Series
    vectors: np.ndarray
    provenance: pl.Series


def read_new_items(folder: Path, ids: pl.Series, width: int) -> NewItems:
    """Read ``content_vectors.parquet``, where there is one.

    Args:
        folder: The bundle.
        ids: Ids of the items that training knows: their name and type are those of the new ones.
        width: ``D``.
    """
    path = folder / CONTENT_FILE
    if not path.is_file():
        return NewItems(ids.clear(), np.empty((0, width), np.float32), pl.Series("provenance", [], pl.String))
    frame = pl.read_parquet(path)
    vectors = np.ascontiguousarray(frame["vector"].rechunk().to_numpy().reshape(-1, width))
    return NewItems(frame[ids.name].cast(ids.dtype), vectors, frame["provenance"])
