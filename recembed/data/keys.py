"""Raw id columns → int64 keys, the same bits on every run and machine.

Integers are their own keys, strings are hashed by xxHash64 (seed 0, UTF-8), booleans are 0 and 1, null is
``MISSING_KEY``. Test vectors: ``"" → -1205034819632174695``, ``"a" → -3292477735350538661``.
"""

import numpy as np
import polars as pl
import polars_hash

from recembed.errors import DataError
from recembed.hashing import MISSING_KEY
from recembed.schema.fitted import KeyType

__all__ = ["hashed", "key_column", "key_type", "normal_ids", "to_keys"]

_LARGEST = 2**63 - 1
_WIDE = (pl.UInt64, pl.Int128, pl.UInt128)


def key_type(dtype: pl.DataType, column: str = "id") -> KeyType:
    """Return how ids of ``dtype`` become keys.

    Raises:
        DataError: ids of this type have no stable key (floats, dates, nested types).

    >>> key_type(pl.UInt8()), key_type(pl.String())
    ('int', 'string')
    """
    if dtype.is_integer() or dtype == pl.Boolean or dtype == pl.Null:
        return "int"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "string"
    if dtype.is_float() or dtype.is_decimal():
        raise DataError(
            f"column {column!r} has type {dtype}: a fractional number is no id; cast it to an integer or a string, "
            "or give the feature kind 'numeric'"
        )
    raise DataError(f"column {column!r} has type {dtype}: expected integers or strings as ids; cast it to one of them")


def normal_ids(ids: pl.Series, column: str) -> pl.Series:
    """Return ids of any accepted type as Int64 or String.

    Raises:
        DataError: an id is above int64, or equals the key kept for missing values.
    """
    if key_type(ids.dtype, column) == "string":
        return ids if ids.dtype == pl.String else ids.cast(pl.String)
    if ids.dtype in _WIDE:
        _check_range(ids, column)
    ids = ids if ids.dtype == pl.Int64 else ids.cast(pl.Int64)
    if ids.min() == MISSING_KEY:
        raise DataError(f"column {column!r}: id {MISSING_KEY} is reserved for missing values; renumber it")
    return ids


def _check_range(ids: pl.Series, column: str) -> None:
    outside = ids.filter((ids > _LARGEST) | (ids.cast(pl.Int128) < MISSING_KEY))
    if len(outside):
        raise DataError(
            f"column {column!r}: id {outside[0]} is outside {MISSING_KEY + 1}..{_LARGEST} (64-bit signed integers); "
            "read the column as strings"
        )


def key_column(column: str) -> str:
    """Return what the keys of a text column are called where a block brings them along."""
    return f"\0keys of {column}"


def hashed(column: str) -> pl.Expr:
    """Return the int64 keys of a text column, null as ``MISSING_KEY``."""
    keys: pl.Expr = polars_hash.col(column).nchash.xxhash64().reinterpret(signed=True)
    return keys.fill_null(MISSING_KEY)


def to_keys(ids: pl.Series) -> np.ndarray:
    """Return the int64 keys of Int64 or String ``ids``, null as ``MISSING_KEY``.

    >>> to_keys(pl.Series(["", "a", None])).tolist()
    [-1205034819632174695, -3292477735350538661, -9223372036854775808]
    """
    if ids.dtype == pl.String:
        return ids.to_frame("id").select(hashed("id")).to_series().to_numpy()
    return ids.fill_null(MISSING_KEY).to_numpy()
