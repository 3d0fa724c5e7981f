"""The id map: invertible, growing without moving rows, with one stated place for the missing and the unseen."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recembed.errors import DataError
from recembed.hashing import MISSING_KEY
from recembed.schema.vocabulary import FIRST_OOV_ID, MISSING_ID, PADDING_ID, Vocabulary, lookup_ids

KEYS = st.integers(-(2**63) + 1, 2**63 - 1)
COUNTED = st.dictionaries(KEYS, st.integers(1, 1000), max_size=30)
BUCKETS = st.integers(1, 7)


def ints(values: object) -> np.ndarray:
    return np.array(list(values), dtype=np.int64)  # type: ignore[call-overload]


def build(counted: dict[int, int], buckets: int = 1) -> Vocabulary:
    keys = ints(counted)
    return Vocabulary.build(pl.Series(keys, dtype=pl.Int64), keys, ints(counted.values()), oov_buckets=buckets)


def test_ids_by_hand() -> None:
    vocabulary = Vocabulary.build(
        pl.Series(["rare", "hot", "tie"]),
        ints([70, 80, 60]),
        ints([1, 9, 1]),
        oov_buckets=2,
        oov_count=10,
        missing_count=3,
    )
    # 0 padding, 1 missing, 2 and 3 unseen, then by falling count; equal counts by key.
    assert vocabulary.lookup(ints([80, 60, 70])).tolist() == [4, 5, 6]
    assert vocabulary.lookup(ints([MISSING_KEY])).tolist() == [MISSING_ID]
    assert set(vocabulary.lookup(np.arange(1000, 1100)).tolist()) == {2, 3}
    assert (vocabulary.first_id, vocabulary.num_embeddings) == (4, 7)
    assert vocabulary.inverse(np.arange(7)).to_list() == [None, None, None, None, "hot", "tie", "rare"]
    assert vocabulary.count_of(np.arange(7)).tolist() == [0, 3, 5, 5, 9, 1, 1]
    assert (PADDING_ID, MISSING_ID, FIRST_OOV_ID) == (0, 1, 2)


@given(counted=COUNTED, buckets=BUCKETS)
def test_inverse_of_lookup_is_the_value(counted: dict[int, int], buckets: int) -> None:
    vocabulary = build(counted, buckets)
    ids = vocabulary.lookup(ints(counted))
    assert vocabulary.inverse(ids).to_list() == list(counted)
    assert sorted(ids.tolist()) == list(range(vocabulary.first_id, vocabulary.num_embeddings))
    assert vocabulary.count_of(ids).tolist() == list(counted.values())
    assert (np.diff(vocabulary.counts) <= 0).all()


@given(counted=COUNTED, unseen=st.lists(KEYS, min_size=1), buckets=BUCKETS)
def test_unseen_keys_go_to_the_buckets_and_nowhere_else(
    counted: dict[int, int], unseen: list[int], buckets: int
) -> None:
    vocabulary = build(counted, buckets)
    ids = vocabulary.lookup(ints(unseen))
    for key, found in zip(unseen, ids.tolist(), strict=True):
        if key in counted:
            assert found >= vocabulary.first_id
        else:
            assert FIRST_OOV_ID <= found < vocabulary.first_id
    assert vocabulary.lookup(ints(unseen)).tolist() == ids.tolist()


@given(counted=COUNTED, more=COUNTED, buckets=BUCKETS)
def test_growth_moves_no_row_and_loses_no_count(counted: dict[int, int], more: dict[int, int], buckets: int) -> None:
    before = build(counted, buckets)
    after = before.extend(pl.Series(ints(more), dtype=pl.Int64), ints(more), ints(more.values()))
    old = ints(counted)
    assert after.lookup(old).tolist() == before.lookup(old).tolist()
    assert after.num_embeddings == after.first_id + len(set(counted) | set(more))
    total = {key: counted.get(key, 0) + more.get(key, 0) for key in set(counted) | set(more)}
    assert after.count_of(after.lookup(ints(total))).tolist() == list(total.values())
    assert after.inverse(after.lookup(ints(more))).to_list() == list(more)
    new = [key for key in more if key not in counted]
    assert all(found >= before.num_embeddings for found in after.lookup(ints(new)).tolist())


@given(counted=COUNTED)
def test_build_does_not_depend_on_the_order_of_its_input(counted: dict[int, int]) -> None:
    keys = list(counted)
    backwards = build({key: counted[key] for key in reversed(keys)})
    assert backwards.keys.tolist() == build(counted).keys.tolist()


@given(keys=st.lists(KEYS, min_size=1, max_size=12), buckets=BUCKETS)
def test_lookup_keeps_any_shape(keys: list[int], buckets: int) -> None:
    vocabulary = build(dict.fromkeys(keys[::2], 1), buckets)
    flat = vocabulary.lookup(ints(keys))
    assert vocabulary.lookup(ints(keys).reshape(1, -1, 1)).tolist() == flat.reshape(1, -1, 1).tolist()
    tensors = lookup_ids(torch.tensor(keys), *vocabulary.tensors(), buckets)
    assert tensors.tolist() == flat.tolist()


def test_empty_vocabulary_still_answers() -> None:
    vocabulary = build({})
    assert vocabulary.num_embeddings == 3
    assert vocabulary.lookup(ints([5, MISSING_KEY])).tolist() == [2, 1]
    grown = vocabulary.extend(pl.Series([5]), ints([5]), ints([1]))
    assert grown.lookup(ints([5])).tolist() == [3]


def test_buckets_share_the_unseen_evenly() -> None:
    ids = build({}, 4).lookup(np.arange(40_000))
    shares = np.bincount(ids)[2:]
    assert shares.sum() == 40_000
    assert (abs(shares - 10_000) < 5 * (40_000 * 0.25 * 0.75) ** 0.5).all()


def test_two_values_of_one_key_are_refused() -> None:
    with pytest.raises(DataError, match=r"values \['a', 'b'\] have the same 64-bit key; rename one of them"):
        Vocabulary.build(pl.Series(["a", "b"]), ints([7, 7]), ints([2, 1]))
    one = Vocabulary.build(pl.Series(["a"]), ints([7]), ints([2]))
    with pytest.raises(DataError, match="have the same 64-bit key"):
        one.extend(pl.Series(["b", "c"]), ints([8, 8]), ints([1, 1]))


def test_the_reserved_key_is_refused() -> None:
    with pytest.raises(DataError, match=f"id {MISSING_KEY} is reserved for missing values; renumber it"):
        Vocabulary.build(pl.Series([0]), ints([MISSING_KEY]), ints([1]))


class Lookup(torch.nn.Module):
    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        keys, ids = vocabulary.tensors()
        self.register_buffer("keys", keys)
        self.register_buffer("ids", ids)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return lookup_ids(raw, self.keys, self.ids, 3)  # type: ignore[arg-type]


def test_lookup_is_the_same_inside_an_exported_graph() -> None:
    vocabulary = build({key * 977: 5 for key in range(-50, 50)}, 3)
    batch = torch.export.Dim("batch", min=1, max=100_000)
    graph = torch.export.export(Lookup(vocabulary), (torch.arange(8),), dynamic_shapes=({0: batch},))
    keys = np.concatenate([np.arange(-1000, 1000) * 977, ints([MISSING_KEY, 2**63 - 1, -(2**63) + 1])])
    assert graph.module()(torch.from_numpy(keys)).tolist() == vocabulary.lookup(keys).tolist()
