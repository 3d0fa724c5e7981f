"""Raw rows → the tensors that a ``ServingGraph`` takes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from recembed.batch import Jagged
from recembed.data import encode
from recembed.hashing import MISSING_KEY
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema

__all__ = ["GraphInputs", "RowReader", "describe_inputs", "raw_columns"]

GraphInputs = tuple[Tensor, dict[str, tuple[Tensor, ...]], Tensor]
"""``keys``, ``jagged`` and ``numeric``; see ``ServingGraph`` for the shapes."""

_TYPES = {"int": pl.Int64(), "string": pl.String()}


class RowReader:
    """Turns raw rows into keys and numbers on the road that training rows take, and counts unseen ids.

    Attributes:
        unseen: Occurrences so far of ids that are not in the vocabulary, by feature whose vocabulary is there.
    """

    def __init__(self, fitted: FittedSchema) -> None:
        self.fitted = fitted
        names = [feature.name for feature in (*fitted.schema.categorical, *fitted.schema.jagged)]
        self._features = frozenset(names)
        self.unseen = {name: 0 for name in names if fitted.vocabulary_of(name) is not None}

    def read(self, rows: pl.DataFrame, block: int) -> Iterator[GraphInputs]:
        """Yield the arguments of a ``ServingGraph`` for ``block`` rows at a time.

        Raises:
            DataError: a column is missing or of another type than in training, an id has no 64-bit key, or a
                number is infinite.
        """
        data = encode(_give_types(rows, self.fitted), self.fitted, key_features=self._features, labels=False)
        for name, count in data.unseen.items():
            self.unseen[name] += count
        for start in range(0, len(data), block):
            batch = data.batch(np.arange(start, min(start + block, len(data))))
            yield batch.ids, {name: _tensors(jagged) for name, jagged in batch.jagged.items()}, batch.numeric


def _tensors(jagged: Jagged) -> tuple[Tensor, ...]:
    tensors = (jagged.values, jagged.offsets.diff())
    return tensors if jagged.weights is None else (*tensors, jagged.weights)


def _give_types(rows: pl.DataFrame, fitted: FittedSchema) -> pl.DataFrame:
    """Give columns that hold nothing but null, or nothing but empty lists, the type that they had in training."""
    casts = []
    for feature in (*fitted.schema.categorical, *fitted.schema.jagged):
        dtype, wanted = rows.schema.get(feature.source), _TYPES[fitted.key_types[feature.name]]
        if dtype == pl.Null:
            given = pl.String() if feature.separator else pl.List(wanted) if feature.jagged else wanted
            casts.append(pl.col(feature.source).cast(given))
        elif feature.jagged and dtype == pl.List(pl.Null):
            casts.append(pl.col(feature.source).cast(pl.List(wanted)))
        if feature.weights is not None and rows.schema.get(feature.weights) in (pl.Null, pl.List(pl.Null)):
            casts.append(pl.col(feature.weights).cast(pl.List(pl.Float32)))
    return rows.with_columns(casts)


def raw_columns(schema: Schema) -> list[str]:
    """Return the columns of raw rows that the features read."""
    names = [name for feature in schema.features for name in (feature.source, feature.weights) if name is not None]
    return list(dict.fromkeys(names))


def describe_inputs(fitted: FittedSchema) -> dict[str, Any]:
    """Say in plain words and numbers how to call the graph without recembed."""
    schema, types = fitted.schema, fitted.key_types
    return {
        "call": "graph(keys, jagged, numeric) -> {'probability': float32 [B], 'logit': float32 [B]}",
        "keys": [{"feature": f.name, "column": f.source, "type": types[f.name]} for f in schema.categorical],
        "jagged": {
            f.name: {
                "column": f.source,
                "type": types[f.name],
                "weights": f.weights,
                "separator": f.separator,
                "max_length": f.max_length,
            }
            for f in schema.jagged
        },
        "numeric": [{"feature": f.name, "column": f.source, "width": f.width} for f in schema.numeric],
        "jagged_tensors": "values int64 [N], lengths int64 [B], and weights float32 [N] where there is a weights column",
        "jagged_cells": "text is split at the separator, empty parts left out; of more than max_length ids the last count",
        "integer_key": "the integer itself",
        "string_key": "xxHash64, seed 0, of the UTF-8 bytes, as a signed 64-bit integer",
        "missing_key": MISSING_KEY,
        "missing_number": "NaN",
    }
