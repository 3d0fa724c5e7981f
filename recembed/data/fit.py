"""Training rows → ``FittedSchema``, in one streaming pass."""

from dataclasses import replace

import numpy as np
import polars as pl

from recembed.data.columns import blocks, id_types, ids, jagged_ids, types_of
from recembed.data.keys import to_keys
from recembed.data.matrices import label_matrix, numeric_matrix
from recembed.data.numbers import NumericSummary
from recembed.errors import DataError
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema, KeyType
from recembed.schema.vocabulary import Vocabulary

__all__ = ["Summary", "check_key_types", "extend", "fit", "fitted_from"]

_MERGE_ROWS = 1 << 20


class Counts:
    """How often each value of one vocabulary occurs. Memory grows with distinct values, not with rows."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self._rows = self._merged = 0

    def add(self, part: pl.DataFrame) -> None:
        """Add the counts of one block: columns ``value`` and ``count``."""
        self._parts.append(part)
        self._rows += part.height
        if self._rows > 2 * self._merged + _MERGE_ROWS:
            self._merge()

    def _merge(self) -> None:
        merged = pl.concat(self._parts).group_by("value").agg(pl.col("count").sum())
        self._parts, self._rows, self._merged = [merged], merged.height, merged.height

    def result(self) -> tuple[pl.Series, np.ndarray, int]:
        """Return distinct values, their counts, and the count of null."""
        self._merge()
        merged = self._parts[0]
        missing = int(merged.filter(pl.col("value").is_null())["count"].sum())
        merged = merged.filter(pl.col("value").is_not_null())
        return merged["value"], merged["count"].cast(pl.Int64).to_numpy(), missing


class Summary:
    """Everything that one pass over the blocks collects."""

    def __init__(self, schema: Schema, key_types: dict[str, KeyType]) -> None:
        self.schema, self.key_types = schema, key_types
        self.counts = {f.name: Counts() for f in schema.features if f.kind != "numeric" and _owns(schema, f.name)}
        self.numbers = NumericSummary(sum(feature.width for feature in schema.numeric))
        self.empty = dict.fromkeys(key_types, 0)
        self.positive = np.zeros(len(schema.labels), np.int64)
        self.rows = 0

    def add(self, block: pl.DataFrame, numeric: np.ndarray, labels: np.ndarray) -> None:
        """Take in one block of raw rows, with its numbers and labels as matrices."""
        waiting: dict[str, list[pl.Series]] = {name: [] for name in self.counts}
        for name, kind in self.key_types.items():
            feature = self.schema[name]
            if feature.jagged:
                jagged = jagged_ids(block, feature, kind)
                values, empty = jagged.ids, int((np.diff(jagged.offsets) == 0).sum())
            else:
                values = ids(block, feature)
                empty = values.null_count()
            self.empty[name] += empty
            if feature.vocabulary_name in waiting:
                waiting[feature.vocabulary_name].append(values.alias("value"))
        for name, part in zip(waiting, _count(list(waiting.values())), strict=True):
            self.counts[name].add(part)
        self.numbers.add(numeric)
        self.positive += labels.sum(0).astype(np.int64)
        self.rows += block.height

    def checked(self) -> "Summary":
        """Return self, refused with ``DataError`` if there were no rows."""
        if self.rows == 0:
            raise DataError("the data has no rows, so there is nothing to fit; check the path and the filters")
        return self


def _owns(schema: Schema, name: str) -> bool:
    feature = schema[name]
    return feature.shares is None and feature.vocabulary


def _count(columns: list[list[pl.Series]]) -> list[pl.DataFrame]:
    frames = (pl.concat(column).to_frame().lazy() for column in columns)
    return pl.collect_all([frame.group_by("value").agg(pl.len().alias("count")) for frame in frames])


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
    summary = Summary(schema, id_types(types_of(frame), schema, labels=True))
    for block in blocks(frame, schema, labels=True):
        summary.add(block, numeric_matrix(block, schema), label_matrix(block, schema))
    return summary.checked()


def fitted_from(summary: Summary) -> FittedSchema:
    """Build the mapping from everything that was counted.

    Raises:
        DataError: a label is the same in all rows, or two ids have one key.
    """
    schema = summary.schema
    for label, positive in zip(schema.labels, summary.positive.tolist(), strict=True):
        if positive in (0, summary.rows):
            raise DataError(
                f"label {label.name!r}: all {summary.rows} rows are {int(positive > 0)}, so there is nothing to learn; "
                f"check column {label.source!r}, positive_from and the split"
            )
    stats, start = {}, 0
    for feature in schema.numeric:
        stats[feature.name] = summary.numbers.result(start, feature.width)
        start += feature.width
    return FittedSchema(
        schema,
        {name: _vocabulary(schema, name, counts) for name, counts in summary.counts.items()},
        stats,
        summary.key_types,
        summary.rows,
        {name: empty / summary.rows for name, empty in summary.empty.items()},
        {label.name: int(n) / summary.rows for label, n in zip(schema.labels, summary.positive, strict=True)},
    )


def _vocabulary(schema: Schema, name: str, counts: Counts) -> Vocabulary:
    values, numbers, missing = counts.result()
    keys, kept, folded = _kept(schema, name, values, numbers)
    return Vocabulary.build(
        values.gather(kept),
        keys[kept],
        numbers[kept],
        oov_buckets=schema[name].oov_buckets,
        oov_count=folded,
        missing_count=missing,
    )


def _kept(schema: Schema, name: str, values: pl.Series, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return all keys, the places of the values that ``min_count`` and ``top_k`` keep, and the count of the rest."""
    feature = schema[name]
    keys = to_keys(values)
    kept = np.flatnonzero(counts >= feature.min_count)
    if feature.top_k is not None and len(kept) > feature.top_k:
        kept = kept[np.lexsort((keys[kept], -counts[kept]))[: feature.top_k]]
    return keys, kept, int(counts.sum() - counts[kept].sum())


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
        values, numbers, missing = counts.result()
        old = fitted.vocabularies[name]
        keys = to_keys(values)
        kept = (numbers >= schema[name].min_count) | np.isin(keys, old.keys)
        vocabulary = old.extend(values.filter(pl.Series(kept)), keys[kept], numbers[kept])
        folded = old.oov_count + int(numbers[~kept].sum())
        grown[name] = replace(vocabulary, oov_count=folded, missing_count=old.missing_count + missing)
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
