"""Which columns of a table of interactions make a graph, and which of its rows."""

from datetime import date, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from recembed.errors import ConfigError, DataError, did_you_mean
from recembed.graph.edges import Duplicates

__all__ = ["GraphColumns"]


class GraphColumns(BaseModel):
    """The meaning of the columns.

    Attributes:
        user: Column of users.
        item: Column of items.
        weight: Column of weights, above 0; None counts every interaction 1.
        time: Column of time stamps.
        until: Keep the rows strictly before this time, so that no edge comes from the future.
        edge_type: Column that names the type of each edge (view, cart, buy).
        type_weights: A factor on the weights by type; a type it leaves out counts 1.
        duplicates: ``once`` keeps the first of equal pairs, ``sum`` adds their weights up (or counts them).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    user: str = "user_id"
    item: str = "item_id"
    weight: str | None = None
    time: str | None = None
    until: int | float | datetime | date | None = None
    edge_type: str | None = None
    type_weights: dict[str, float] = {}
    duplicates: Duplicates = "once"

    def read(self, frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
        """Return the wanted columns of the wanted rows; a lazy frame is read as a stream.

        Raises:
            ConfigError: ``until`` without ``time``.
            DataError: a column is missing, or a row has no user or no item.
        """
        wanted = [name for name in (self.user, self.item, self.weight, self.time, self.edge_type) if name is not None]
        lazy = frame.lazy()
        names = lazy.collect_schema().names()
        for name in wanted:
            if name not in names:
                raise DataError(f"the interactions have no column {name!r}" + did_you_mean(name, names))
        if self.until is not None:
            if self.time is None:
                raise ConfigError(f"until = {self.until!r} needs `time`, the column of time stamps")
            lazy = lazy.filter(pl.col(self.time) < self.until)
        rows = lazy.select(list(dict.fromkeys(wanted))).collect(engine="streaming")
        for name in (self.user, self.item):
            if rows[name].null_count():
                raise DataError(f"column {name!r}: {rows[name].null_count()} rows have no id; drop them before")
        return rows

    def weights(self, rows: pl.DataFrame) -> NDArray[np.float32] | None:
        """Return the weight of each row, its type's factor included; None where all count 1.

        Raises:
            ConfigError: ``type_weights`` names a type that no row has.
        """
        weights = None if self.weight is None else rows[self.weight].cast(pl.Float32).fill_null(np.nan).to_numpy()
        if not self.type_weights:
            return weights
        types = self.types(rows)
        known = set(types.unique().to_list())
        for name in self.type_weights:
            if name not in known:
                raise ConfigError(f"type_weights: no edge is of type {name!r}" + did_you_mean(name, known))
        factors: NDArray[np.float32] = types.replace_strict(
            self.type_weights, default=1.0, return_dtype=pl.Float32
        ).to_numpy()
        return factors if weights is None else weights * factors

    def types(self, rows: pl.DataFrame) -> pl.Series:
        """Return the type of each row as text.

        Raises:
            ConfigError: no column names it.
        """
        if self.edge_type is None:
            raise ConfigError("type_weights needs `edge_type`, the column that names the type of each edge")
        return rows[self.edge_type].cast(pl.String).fill_null("")
