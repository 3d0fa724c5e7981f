"""Training rows → ``FittedSchema``, in one streaming pass."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import polars as pl

from recembed.data.columns import blocks, id_types, types_of
from recembed.data.counts import Counts
from recembed.data.numbers import NumericSummary
from recembed.data.parsed import Parsed, parse
from recembed.errors import DataError
from recembed.schema.feature import Feature, Schema
from recembed.schema.fitted import FittedSchema, KeyType
from recembed.schema.vocabulary import Vocabulary
from recembed.schema.workers import column_workers

__all__ = ["Summary", "check_key_types", "extend", "fit", "fitted_from"]


class Summary:
    """Everything that one pass over the blocks collects."""

    def __init__(self, schema: Schema, key_types: dict[str, KeyType]) -> None:
        self.schema, self.key_types = schema, key_types
        self.counts = {f.name: Counts() for f in schema.features if f.kind != "numeric" and _owns(schema, f.name)}
        self._readers = {name: [n for n in key_types if schema[n].vocabulary_name == name] for name in self.counts}
        self.numbers = NumericSummary(sum(feature.width for feature in schema.numeric))
        self.empty = dict.fromkeys(key_types, 0)
        self.positive = np.zeros(len(schema.labels), np.int64)
        self.rows = 0

    def add(self, parsed: Parsed, pool: ThreadPoolExecutor) -> dict[str, np.ndarray]:
        """Take in one block; return the places of the ids in their ``Counts``, by feature with a vocabulary."""
        for name in self.key_types:
            if name in parsed.offsets:
                self.empty[name] += int(np.count_nonzero(np.diff(parsed.offsets[name]) == 0))
            else:
                self.empty[name] += parsed.values[name].null_count()
        numbers = pool.submit(self.numbers.add, parsed.numeric)
        self.positive += parsed.labels.sum(0).astype(np.int64)
        self.rows += len(parsed.labels)
        counted = list(pool.map(lambda owner: self._count(owner, parsed), self.counts))
        numbers.result()
        return {name: places for found in counted for name, places in found}

    def _count(self, owner: str, parsed: Parsed) -> list[tuple[str, np.ndarray]]:
        counts = self.counts[owner]
        return [(name, counts.add(parsed.values[name], parsed.keys[name])) for name in self._readers[owner]]

    def checked(self) -> "Summary":
        """Return self, refused with ``DataError`` if there were no rows."""
        if self.rows == 0:
            raise DataError("the data has no rows, so there is nothing to fit; check the path and the filters")
        return self


def _owns(schema: Schema, name: str) -> bool:
    feature = schema[name]
    return feature.shares is None and feature.vocabulary


def fit(frame: pl.LazyFrame | pl.DataFrame, schema: Schema) -> FittedSchema:
    """Count ids, measure numbers and check labels in one pass over the training rows.

    Null and NaN numbers are missing values. Memory grows with the number of distinct ids only.

    Raises:
        DataError: there are no rows, a column is missing or of another type, a label is neither 0 nor 1 or always
            the same, a number is infinite, or an id has no 64-bit key.

    >>> schema = Schema.parse({"features": [{"name": "city"}], "labels": [{"name": "click"}]})
    >>> fitted = fit(pl.DataFrame({"city": ["a", "b", "a", None], "click": [1, 0, 0, 1]}), schema)
    >>> fitted.num_embeddings("city"), fitted.vocabularies["city"].values.to_list(), fitted.label_rates
    (5, ['a', 'b'], {'click': 0.5})
    """
    return fitted_from(_summarise(frame, schema))


def _summarise(frame: pl.LazyFrame | pl.DataFrame, schema: Schema) -> Summary:
    frame = frame.lazy()
    key_types = id_types(types_of(frame), schema, labels=True)
    summary = Summary(schema, key_types)
    with column_workers() as pool:
        for block in blocks(frame, schema, labels=True):
            summary.add(parse(block, schema, key_types, labels=True, pool=pool), pool)
    return summary.checked()


def fitted_from(summary: Summary) -> FittedSchema:
    """Build the mapping from everything that was counted.

    Raises:
        DataError: a label is the same in all rows.
    """
    schema = summary.schema
    for label, positive in zip(schema.labels, summary.positive.tolist(), strict=True):
        if positive in (0, summary.rows):
            raise DataError(
                f"label {label.name!r}: all {summary.rows} rows are {int(positive > 0)}, so there is nothing to learn; "
                f"check column {label.source!r}, positive_from and the split"
            )
    widths = [feature.width for feature in schema.numeric]
    with column_workers() as pool:
        stats = pool.map(summary.numbers.result, np.cumsum([0, *widths[:-1]]).tolist(), widths)
        built = pool.map(lambda name: _vocabulary(schema, name, summary.counts[name]), summary.counts)
    return FittedSchema(
        schema,
        dict(zip(summary.counts, built, strict=True)),
        {feature.name: found for feature, found in zip(schema.numeric, stats, strict=True)},
        summary.key_types,
        summary.rows,
        {name: empty / summary.rows for name, empty in summary.empty.items()},
        {label.name: int(n) / summary.rows for label, n in zip(schema.labels, summary.positive, strict=True)},
    )


def _vocabulary(schema: Schema, name: str, counts: Counts) -> Vocabulary:
    values, keys, numbers = counts.result()
    kept, total = _kept(schema[name], keys, numbers), int(numbers.sum())
    if len(kept) < len(keys):
        values, keys, numbers = values.gather(kept), keys[kept], numbers[kept]
    return Vocabulary.build(
        values,
        keys,
        numbers,
        oov_buckets=schema[name].oov_buckets,
        oov_count=total - int(numbers.sum()),
        missing_count=counts.missing,
    )


def _kept(feature: Feature, keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the places of the values that ``min_count`` and ``top_k`` keep."""
    kept = np.flatnonzero(counts >= feature.min_count)
    if feature.top_k is not None and len(kept) > feature.top_k:
        kept = kept[np.lexsort((keys[kept], -counts[kept]))[: feature.top_k]]
    return kept


def extend(fitted: FittedSchema, frame: pl.LazyFrame | pl.DataFrame) -> FittedSchema:
    """Grow the vocabularies by the ids of new training rows that reach ``min_count`` there; no id moves.

    ``top_k`` does not bound growth. Numeric statistics stay as they were fitted, so old numbers keep their meaning.

    Raises:
        DataError: as ``fit``, or ids changed their type since the fit.
    """
    schema = fitted.schema
    check_key_types(fitted, types_of(frame.lazy()))
    summary = _summarise(frame, schema)
    grown = {}
    for name, counts in summary.counts.items():
        values, keys, numbers = counts.result()
        old = fitted.vocabularies[name]
        kept = (numbers >= schema[name].min_count) | np.isin(keys, old.keys)
        vocabulary = old.extend(values.filter(pl.Series(kept)), keys[kept], numbers[kept])
        folded = old.oov_count + int(numbers[~kept].sum())
        grown[name] = replace(vocabulary, oov_count=folded, missing_count=old.missing_count + counts.missing)
    return replace(fitted, vocabularies=grown, rows=fitted.rows + summary.rows)


def check_key_types(fitted: FittedSchema, types: pl.Schema, *, labels: bool = True) -> dict[str, KeyType]:
    """Check the columns against the schema and the types of the ids against those of the training rows.

    Raises:
        DataError: a column is missing or of another type; ids are strings where they were integers, or the reverse.
    """
    found = id_types(types, fitted.schema, labels=labels)
    for name, kind in found.items():
        if kind != fitted.key_types[name]:
            raise DataError(
                f"feature {name!r}: column {fitted.schema[name].source!r} holds {kind} ids here, but held "
                f"{fitted.key_types[name]} ids when the schema was fitted; cast the column to {fitted.key_types[name]}"
            )
    return found
