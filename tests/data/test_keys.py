"""Keys: stable, typed, refused where they cannot be."""

import polars as pl
import pytest

from recembed.data.keys import key_type, normal_ids, to_keys
from recembed.errors import DataError
from recembed.hashing import MISSING_KEY


def keys(values: list, dtype: pl.DataType) -> list[int]:
    return to_keys(normal_ids(pl.Series("item", values, dtype=dtype), "item")).tolist()


@pytest.mark.parametrize("dtype", [pl.Int8(), pl.UInt16(), pl.Int64(), pl.UInt64(), pl.Int128()])
def test_integers_of_every_width_are_their_own_keys(dtype: pl.DataType) -> None:
    assert keys([3, 0, None, 100], dtype) == [3, 0, MISSING_KEY, 100]


def test_negative_ids_and_booleans_are_keys() -> None:
    assert keys([-5, -(2**63) + 1], pl.Int64()) == [-5, -(2**63) + 1]
    assert keys([True, None, False], pl.Boolean()) == [1, MISSING_KEY, 0]


def test_strings_are_xxhash64_of_their_utf8_bytes_in_any_string_type() -> None:
    # xxHash64, seed 0: "" is ef46db3751d8e999, "a" is d24ec4f1a98c6e5b (published test vectors)
    expected = [0xEF46DB3751D8E999 - 2**64, 0xD24EC4F1A98C6E5B - 2**64, MISSING_KEY]
    assert keys(["", "a", None], pl.String()) == expected
    assert keys(["", "a", None], pl.Categorical()) == expected
    assert keys(["", "a", None], pl.Enum(["a", ""])) == expected


@pytest.mark.parametrize("bad", [2**63, 2**64 - 1])
def test_an_id_above_int64_is_refused_with_its_value(bad: int) -> None:
    with pytest.raises(DataError, match=rf"column 'item': id {bad} is outside .*read the column as strings"):
        keys([1, bad], pl.UInt64())


def test_an_id_below_int64_is_refused() -> None:
    with pytest.raises(DataError, match=r"id -9223372036854775809 is outside"):
        keys([-(2**63) - 1], pl.Int128())


def test_the_key_of_missing_values_is_refused_as_an_id() -> None:
    with pytest.raises(DataError, match=r"id -9223372036854775808 is reserved for missing values; renumber it"):
        keys([MISSING_KEY], pl.Int64())


@pytest.mark.parametrize("dtype", [pl.Float32(), pl.Float64(), pl.Decimal(10, 2)])
def test_fractional_ids_are_refused_with_the_fix(dtype: pl.DataType) -> None:
    with pytest.raises(DataError, match=r"column 'price' has type .*no id; cast it to an integer or a string"):
        key_type(dtype, "price")


def test_dates_are_no_ids() -> None:
    with pytest.raises(DataError, match=r"column 'day' has type Date: expected integers or strings"):
        key_type(pl.Date(), "day")
