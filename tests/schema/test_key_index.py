"""The hash table gives the very ids of the binary search."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recembed.hashing import MISSING_KEY
from recembed.schema.key_index import KeyIndex, KeyTable
from recembed.schema.vocabulary import Vocabulary

KEYS = st.integers(-(2**63) + 1, 2**63 - 1)


def build(keys: list[int], oov_buckets: int = 1) -> Vocabulary:
    return Vocabulary.build(
        pl.Series(keys, dtype=pl.Int64), np.array(keys, np.int64), np.ones(len(keys), np.int64), oov_buckets=oov_buckets
    )


@given(st.lists(KEYS | st.integers(-9, 9), unique=True), st.lists(KEYS | st.integers(-9, 9)), st.integers(1, 3))
def test_equal_to_the_binary_search(known: list[int], others: list[int], oov_buckets: int) -> None:
    vocabulary = build(known, oov_buckets)
    keys = np.array([*others, *known, MISSING_KEY], np.int64)
    ids, unseen = KeyIndex(vocabulary).lookup(keys)
    assert ids.tolist() == vocabulary.lookup(keys).tolist()
    assert ids.dtype == np.int32
    assert unseen.tolist() == [place for place, key in enumerate(keys) if key not in {*known, MISSING_KEY}]


@pytest.mark.parametrize("step", [1, 2**20, 2**52])
def test_many_keys_in_regular_steps(step: int) -> None:
    vocabulary = build([step * n for n in range(2000)])
    keys = np.arange(-50, 2050) * step
    assert KeyIndex(vocabulary).lookup(keys)[0].tolist() == vocabulary.lookup(keys).tolist()


def test_keys_that_all_fall_into_one_bucket_are_still_found() -> None:
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    keys = [(n * inverse) % 2**64 for n in range(300)]  # the upper bits of key * multiplier are all zero
    signed = [key - 2**64 if key >= 2**63 else key for key in keys]
    vocabulary = build(signed[:200])
    assert KeyIndex(vocabulary).lookup(np.array(signed))[0].tolist() == vocabulary.lookup(np.array(signed)).tolist()


def test_a_table_that_grows_keeps_every_place() -> None:
    keys = np.random.default_rng(5).permutation(np.arange(-20_000, 20_000) * 977)
    table = KeyTable(keys[:0])
    for low, high in [(0, 1), (1, 900), (900, 901), (901, 30_000)]:  # 4 slots a key: rebuilt on the way
        assert table.places(keys[low:high])[1].tolist() == list(range(high - low))
        table.add(keys[low:high])
    assert len(table) == 30_000
    places, unknown = table.places(keys)
    assert places[:30_000].tolist() == list(range(30_000))
    assert unknown.tolist() == list(range(30_000, 40_000))
    assert table.keys.tolist() == keys[:30_000].tolist()
