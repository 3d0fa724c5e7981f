"""One block of raw rows as keys, numbers and labels: all that encoding needs, whatever the vocabularies will be."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from recembed.data import columns
from recembed.data.keys import key_column, to_keys
from recembed.data.matrices import label_matrix, numeric_matrix
from recembed.schema.feature import Schema
from recembed.schema.fitted import KeyType

__all__ = ["Parsed", "parse"]


@dataclass(frozen=True)
class Parsed:
    """The plain columns of one block.

    Shapes:
        values: feature name to the Int64 or String ids behind ``keys``; keys: feature name to int64 ``[B]``, or ``[M]`` of a jagged feature; offsets: jagged feature name to int64
        ``[B + 1]``; weights: to float32 ``[M]``; numeric: float32 ``[B, W]``; labels: float32 ``[B, L]``.
    """

    values: dict[str, pl.Series]
    keys: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    numeric: np.ndarray
    labels: np.ndarray


def parse(
    block: pl.DataFrame, schema: Schema, key_types: dict[str, KeyType], *, labels: bool, pool: ThreadPoolExecutor
) -> Parsed:
    """Check and convert the columns of one block.

    Raises:
        DataError: a label is neither 0 nor 1, a number is infinite, or an id has no 64-bit key.
    """
    types = block.schema
    ids = {feature.name: columns.ids(block, feature) for feature in schema.categorical}
    jagged = {f.name: columns.jagged_ids(block, f, key_types[f.name]) for f in schema.jagged}
    ids |= {name: column.ids for name, column in jagged.items()}

    def keys(name: str) -> np.ndarray:
        brought = key_column(schema[name].source)
        return block[brought].to_numpy() if brought in types and name not in jagged else to_keys(ids[name])

    return Parsed(
        values=ids,
        keys=dict(zip(ids, pool.map(keys, ids), strict=True)),
        offsets={name: column.offsets for name, column in jagged.items()},
        weights={name: column.weights for name, column in jagged.items() if column.weights is not None},
        numeric=numeric_matrix(block, schema),
        labels=label_matrix(block, schema) if labels else np.empty((block.height, 0), np.float32),
    )
