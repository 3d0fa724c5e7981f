"""Raw ids ↔ node numbers."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recembed.errors import DataError

__all__ = ["distinct_ids", "places_of"]


def distinct_ids(raw: pl.Series) -> pl.Series:
    """Return the distinct ids in ascending order.

    Raises:
        DataError: ids are neither integers nor strings.
    """
    if not (raw.dtype.is_integer() or raw.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise DataError(f"column {raw.name!r} holds {raw.dtype}: ids are integers or strings; cast the column before")
    plain = raw.cast(pl.Int64) if raw.dtype.is_integer() else raw.cast(pl.String)
    return plain.unique().sort()


def places_of(raw: pl.Series, known: pl.Series) -> NDArray[np.int64]:
    """Return int64 ``[N]``: where each of ``raw`` stands in ``known``, -1 for an id that is not there.

    >>> places_of(pl.Series(["b", "z"]), pl.Series(["a", "b"])).tolist()
    [1, -1]

    Raises:
        DataError: the ids are of another type than the known ones.
    """
    if raw.dtype.is_integer() != known.dtype.is_integer():
        raise DataError(f"ids of {raw.dtype} looked up among ids of {known.dtype}: cast the column {raw.name!r} before")
    table = pl.DataFrame({"id": known, "place": np.arange(len(known), dtype=np.int64)})
    asked = pl.DataFrame({"id": raw.cast(known.dtype)})
    found = asked.join(table, on="id", how="left", maintain_order="left")["place"]
    places: NDArray[np.int64] = found.fill_null(-1).to_numpy()
    return places
