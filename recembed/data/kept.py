"""Fit and encode the same rows while reading them once."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from recembed.data.columns import blocks, id_types, types_of
from recembed.data.encode import PlaceIndex, encode_parsed
from recembed.data.encoded import EncodedData
from recembed.data.fit import Summary, fitted_from
from recembed.data.parsed import Parsed, parse
from recembed.errors import DataError
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema
from recembed.schema.workers import column_workers

__all__ = ["KeptRows", "fit_and_keep"]


class KeptRows:
    """Training rows held by place in the count until it is known which tables read ids and which read keys."""

    def __init__(self, fitted: FittedSchema, parts: list[Parsed], keys: dict[str, np.ndarray]) -> None:
        self._fitted, self._parts, self._keys = fitted, parts, keys

    def encode(self, key_features: frozenset[str] = frozenset()) -> EncodedData:
        """Return what ``encode`` would; the kept rows are freed on the way, so this works once.

        Raises:
            DataError: the rows were encoded before.
        """
        if not self._parts:
            raise DataError("these kept rows were encoded before and are freed; encode the frame with encode()")
        with column_workers() as pool:
            known = self._fitted.indices
            places = pool.map(lambda name: PlaceIndex(self._keys[name], known[name]), self._keys)
            indices = dict(zip(self._keys, places, strict=True))
            rows, parts = self._fitted.rows, self._drain()
            return encode_parsed(parts, self._fitted, key_features, labels=True, pool=pool, indices=indices, rows=rows)

    def _drain(self) -> Iterator[Parsed]:
        self._parts.reverse()
        while self._parts:
            yield self._parts.pop()


def fit_and_keep(frame: pl.LazyFrame | pl.DataFrame, schema: Schema) -> tuple[FittedSchema, KeptRows]:
    """Fit ``schema`` as ``fit`` does and keep the rows for encoding: the file is read once in place of twice.

    Memory: 4 bytes per id, number and label; 8 per id of a feature without a vocabulary.

    Raises:
        DataError: as ``fit``.

    >>> schema = Schema.parse({"features": [{"name": "city"}], "labels": [{"name": "click"}]})
    >>> fitted, kept = fit_and_keep(pl.DataFrame({"city": ["a", "b", "a"], "click": [1, 0, 0]}), schema)
    >>> kept.encode().ids.tolist()
    [[3], [4], [3]]
    """
    frame = frame.lazy()
    key_types = id_types(types_of(frame), schema, labels=True)
    summary, parts = Summary(schema, key_types), []
    with column_workers() as pool:
        for block in blocks(frame, schema, labels=True):
            parsed = parse(block, schema, key_types, labels=True, pool=pool)
            places = summary.add(parsed, pool)
            parts.append(replace(parsed, values={}, keys=parsed.keys | places))
    fitted = fitted_from(summary.checked())
    return fitted, KeptRows(fitted, parts, {name: counts.keys for name, counts in summary.counts.items()})
