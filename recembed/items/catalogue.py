"""A content file → a catalogue: one row per item, keyed by raw id, in the order of the keys."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recembed.data.keys import normal_ids, to_keys
from recembed.errors import ConfigError, DataError, did_you_mean
from recembed.items.faults import Faults
from recembed.items.settings import ContentConfig
from recembed.sources import reading, scan

__all__ = ["Catalogue", "read_catalogue", "sorted_by_key"]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items and what is written of them.

    Attributes:
        ids: Raw ids, Int64 or String, ``N`` of them.
        keys: int64 ``[N]``, their 64-bit keys, ascending.
        frame: The columns of content, ``N`` rows.
    """

    ids: pl.Series
    keys: np.ndarray
    frame: pl.DataFrame

    def __len__(self) -> int:
        """Return ``N``."""
        return len(self.keys)


def read_catalogue(config: ContentConfig, faults: Faults) -> Catalogue | None:
    """Read the content file; None where the config needs none.

    Rows without an id are left out and counted. Equal rows count once; of rows with one id and different content the
    first is kept, and the id is counted.

    Raises:
        ConfigError: content is needed and not given. DataError: a column is not there, or ids are of no use.
    """
    if not config.columns:
        return None
    if config.content is None or config.id is None:
        absent = "content (the file of the items)" if config.content is None else "id (its column of raw ids)"
        raise ConfigError(f"{', '.join(config.columns)}: columns of content are named, but not {absent}; set it")
    source = config.content if isinstance(config.content, str) else list(config.content)
    with reading(source):
        rows = scan(source)
        known = rows.collect_schema().names()
        for column in (config.id, *config.columns):
            if column not in known:
                raise DataError(f"{config.content}: there is no column {column!r}" + did_you_mean(column, known))
        frame = rows.select(config.id, *(c for c in config.columns if c != config.id)).collect()
    return catalogue_of(frame, config.id, faults)


def catalogue_of(frame: pl.DataFrame, id_column: str, faults: Faults) -> Catalogue:
    """Return the catalogue of the rows of ``frame``; see ``read_catalogue``.

    >>> frame = pl.DataFrame({"item": [3, 1, 3, None], "title": ["c", "a", "d", "x"]})
    >>> faults = Faults()
    >>> catalogue_of(frame, "item", faults).ids.to_list(), list(faults.counts.values())
    ([1, 3], [1, 1])
    """
    without = frame[id_column].null_count()
    faults.broken("content", "rows without an id", [None] * without)
    frame = frame.filter(pl.col(id_column).is_not_null()).unique(maintain_order=True)
    if not frame.height:
        raise DataError(f"content has no row with an id in {id_column!r}")
    first = frame.unique(id_column, keep="first", maintain_order=True)
    if first.height < frame.height:
        several = frame.group_by(id_column, maintain_order=True).len().filter(pl.col("len") > 1)[id_column].to_list()
        faults.broken("content", "ids with different content (the first is kept)", several)
    ids = normal_ids(first[id_column], id_column)
    order, keys = sorted_by_key(ids)
    return Catalogue(ids.gather(order), keys, first.drop(id_column)[order])


def sorted_by_key(ids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of ascending keys, and the keys in it."""
    keys = to_keys(ids)
    order = np.argsort(keys, kind="stable")
    return order, keys[order]
