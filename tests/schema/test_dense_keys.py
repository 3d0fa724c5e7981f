import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recembed.hashing import MISSING_KEY
from recembed.schema.dense_keys import DenseKeys
from recembed.schema.key_index import KeyIndex, KeyTable
from recembed.schema.vocabulary import Vocabulary

KEYS = st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True).map(lambda drawn: np.array(drawn, np.int64))
ASKED = st.lists(
    st.one_of(st.integers(-3, 70), st.sampled_from([MISSING_KEY, -(2**63) + 1, 2**63 - 1, 2**32])), max_size=40
).map(lambda drawn: np.array(drawn, np.int64))


@given(KEYS, ASKED)
def test_it_finds_what_the_hash_table_finds(keys: np.ndarray, asked: np.ndarray) -> None:
    for found, expected in zip(DenseKeys(keys).places(asked), KeyTable(keys).places(asked), strict=True):
        assert found.dtype == expected.dtype and found.tolist() == expected.tolist()


def test_it_suits_keys_with_few_gaps_from_zero_on() -> None:
    assert DenseKeys.suits(np.array([0, 7])) and DenseKeys.suits(np.array([3, 2, 0]))
    assert not DenseKeys.suits(np.array([0, 8])) and not DenseKeys.suits(np.array([-1, 1]))
    assert not DenseKeys.suits(np.empty(0, np.int64))


def test_an_index_takes_it_where_it_suits() -> None:
    def table(keys: list[int]) -> object:
        drawn = np.array(keys, np.int64)
        return KeyIndex(Vocabulary.build(pl.Series(drawn), drawn, np.ones(len(keys), np.int64)))._table

    assert type(table([4, 0, 2])) is DenseKeys
    assert type(table([4, 1 << 40])) is KeyTable


def test_integers_are_held_once() -> None:
    keys = np.array([7, 9, 8], np.int64)
    once = Vocabulary.build(pl.Series(keys), keys, np.array([1, 2, 3])).extend(
        pl.Series([7, 3]), np.array([7, 3]), np.array([1, 1])
    )
    assert (once.keys.tolist(), once.values.to_list(), once.counts.tolist()) == ([8, 9, 7, 3],) * 2 + ([3, 2, 2, 1],)
    assert np.shares_memory(once.keys, once.values.to_numpy())
    words = Vocabulary.build(pl.Series(["a", "b"]), keys[:2], np.array([1, 2]))
    assert (words.keys.tolist(), words.values.to_list()) == ([9, 7], ["b", "a"])
    renamed = Vocabulary(keys[:2], np.array([1, 2]), pl.Series([1, 2]))  # what nobody does, but may
    assert (renamed.keys.tolist(), renamed.values.to_list()) == ([7, 9], [1, 2])
