"""Where is a model weak? Metrics of slices of the rows: by how often an id was trained, and by unseen ids.

Axes: ``N`` rows.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from recembed.errors import ConfigError, DataError
from recembed.evaluation.checks import Floats, check_rows
from recembed.evaluation.evaluate import point_metrics

__all__ = ["by_frequency", "by_unseen"]

_METRICS = ("auc", "logloss", "ne", "calibration")


def by_frequency(
    labels: ArrayLike, logits: ArrayLike, train_counts: ArrayLike, edges: Sequence[int] = (1, 5, 20, 100)
) -> pl.DataFrame:
    """Return the metrics of the rows of unseen (0), rare and frequent ids, one line per bucket.

    Columns: ``bucket`` (such as ``0``, ``1-4``, ``100+``), ``n``, ``positives``, ``share`` of all rows, ``auc``,
    ``logloss``, ``ne``, ``calibration``. A metric is null where the slice does not define it.

    Args:
        labels: 0 or 1, ``[N]``.
        logits: ``[N]``.
        train_counts: How often the id of each row occurred in the training rows, int64 ``[N]``.
        edges: The least count of each bucket after the first, rising.

    Raises:
        ConfigError: ``edges`` do not rise from 1 or more.
        DataError: ``train_counts`` has another length or a negative count.

    >>> by_frequency([0, 1, 1], [-1.0, 1.0, 2.0], [0, 7, 7], edges=(1, 5)).select("bucket", "n").rows()
    [('0', 1), ('1-4', 0), ('5+', 2)]
    """
    y, x = check_rows(labels, logits, "logits")
    counts = np.asarray(train_counts)
    if counts.shape != y.shape or counts.min() < 0:
        raise DataError(f"train_counts {list(counts.shape)}: expected {len(y)} counts of 0 or more")
    if not edges or edges[0] < 1 or any(low >= high for low, high in pairwise(edges)):
        raise ConfigError(f"edges = {list(edges)}: expected rising counts from 1 on, such as [1, 5, 20, 100]")
    bucket = np.searchsorted(np.asarray(edges), counts, side="right")  # [N]
    lines = [{"bucket": name} | _line(y, x, bucket == i) for i, name in enumerate(_bucket_names(edges))]
    return pl.DataFrame(lines, schema=_columns(bucket=pl.String()))


def by_unseen(labels: ArrayLike, logits: ArrayLike, unseen: Mapping[str, NDArray[np.bool_]]) -> pl.DataFrame:
    """Return for each feature the metrics of the rows with a known id and of those with an unseen one.

    Columns: ``feature``, ``unseen``, then those of ``by_frequency``. Two lines per feature, in the order given.

    Args:
        labels: 0 or 1, ``[N]``.
        logits: ``[N]``.
        unseen: Feature name to bool ``[N]``: whether the id of the row was absent from the training rows.

    Raises:
        DataError: a mask has another shape or type.

    >>> by_unseen([0, 1], [-1.0, 1.0], {"city": np.array([True, False])}).select("unseen", "n").rows()
    [(False, 1), (True, 1)]
    """
    y, x = check_rows(labels, logits, "logits")
    lines = []
    for feature, mask in unseen.items():
        if mask.shape != y.shape or mask.dtype != np.bool_:
            raise DataError(
                f"unseen[{feature!r}] {mask.dtype} {list(mask.shape)}: expected bool [{len(y)}], one entry per row"
            )
        lines += [{"feature": feature, "unseen": new} | _line(y, x, mask == new) for new in (False, True)]
    return pl.DataFrame(lines, schema=_columns(feature=pl.String(), unseen=pl.Boolean()))


def _line(labels: Floats, logits: Floats, rows: NDArray[np.bool_]) -> dict[str, int | float | None]:
    n, positives = int(rows.sum()), int(labels[rows].sum())
    line: dict[str, int | float | None] = {"n": n, "positives": positives, "share": n / len(labels)}
    if not n:
        return line | dict.fromkeys(_METRICS)
    values, _ = point_metrics(labels[rows], logits[rows])
    return line | {name: None if np.isnan(values[name]) else values[name] for name in _METRICS}


def _columns(**first: pl.DataType) -> dict[str, pl.DataType]:
    metrics = {name: pl.Float64() for name in ("share", *_METRICS)}
    return {**first, "n": pl.Int64(), "positives": pl.Int64(), **metrics}


def _bucket_names(edges: Sequence[int]) -> list[str]:
    """Name the buckets.

    >>> _bucket_names([1, 2, 5])
    ['0', '1', '2-4', '5+']
    """
    names = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise((0, *edges))]
    return [*names, f"{edges[-1]}+"]
