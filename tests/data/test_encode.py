"""Encode: ids, numbers and labels by hand, the round trip, and the refusals."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recembed.data.encode import encode, encode_to
from recembed.data.encoded import EncodedData
from recembed.data.fit import extend, fit
from recembed.errors import DataError
from recembed.hashing import MISSING_KEY
from recembed.schema.feature import Schema
from tests.data.rows import SCHEMA, frame

SIMPLE = Schema.parse({"features": [{"name": "x"}], "labels": [{"name": "y"}]})


def one_column(values: list) -> pl.DataFrame:
    return pl.DataFrame({"x": values}).with_columns(y=pl.int_range(pl.len()) % 2)


def same(one: EncodedData, other: EncodedData) -> bool:
    mine, theirs = one.arrays(), other.arrays()
    equal = [np.array_equal(mine[name], theirs[name], equal_nan=name == "numeric") for name in mine]
    return mine.keys() == theirs.keys() and all(equal) and one.unseen == other.unseen


def test_every_kind_by_hand() -> None:
    data = encode(frame(), fit(frame(), SCHEMA))
    assert len(data) == 4
    assert data.ids.tolist() == [[3, 3, 4], [4, 2, 4], [3, 3, 3], [1, 2, data.ids[3, 2]]]  # user, city, item
    assert data.ids.dtype == np.int32
    genres, history, tags = (data.jagged[name] for name in ("genres", "history", "tags"))
    assert genres.offsets.tolist() == [0, 2, 2, 2, 3]
    assert genres.values.tolist() == [4, 3, 3]  # "b" is more frequent than "a"
    assert history.offsets.tolist() == [0, 2, 2, 3, 3]
    assert data.fitted.vocabularies["item"].inverse(history.values).to_list() == [8, 9, 9]  # the last two are kept
    assert tags.weights is not None
    assert tags.weights.tolist() == [1, 0.5, 2, 3]
    assert data.numeric[[0, 3]].tolist() == [[20, 1, 2], [40, 5, 6]]
    assert np.isnan(data.numeric[[1, 2], 0]).all()
    assert np.isnan(data.numeric[2]).all()
    assert data.labels.tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]
    assert data.unseen == {"user": 0, "city": 2, "genres": 0, "history": 0, "item": 0, "tags": 0}
    assert data.unseen_rows("city").tolist() == [False, True, False, True]
    assert data.train_counts("item").tolist() == [2, 2, 3, 1]
    assert data.train_counts("user").tolist() == [2, 1, 2, 1]  # the last is the count of missing users


def test_unseen_ids_work_and_are_counted() -> None:
    fitted = fit(frame(), SCHEMA)
    new = frame().with_columns(item=pl.Series([7, -99, 9, 1000]), genres=pl.Series(["new|a", "b", "new", ""]))
    data = encode(new, fitted)
    assert data.unseen["item"] == 2
    assert data.unseen["genres"] == 2
    assert data.column("item").tolist()[1::2] == [2, 2]
    assert data.unseen_rows("item").tolist() == [False, True, False, True]
    assert data.unseen_rows("genres").tolist() == [True, False, True, False]
    assert data.train_counts("item").tolist() == [2, 0, 3, 0]


def test_key_features_hold_raw_keys_and_still_know_their_vocabulary() -> None:
    fitted = fit(frame(), SCHEMA)
    data = encode(frame(), fitted, key_features=frozenset({"user", "tags"}))
    assert data.column("user").tolist() == [10, 20, 10, MISSING_KEY]
    assert data.ids.shape == (4, 2)
    assert data.jagged["tags"].values.dtype == np.int64
    assert data.train_counts("user").tolist() == [2, 1, 2, 1]
    assert data.unseen["user"] == 0
    batch = data.batch(np.array([1, 0]))
    assert batch.ids.tolist() == [[20, 2, 4], [10, 3, 4]]  # columns in the order of the schema


def test_a_feature_without_a_vocabulary_must_be_read_as_keys() -> None:
    schema = Schema.parse({"features": [{"name": "x", "vocabulary": False}]})
    fitted = fit(one_column([1, 2]), schema)
    with pytest.raises(DataError, match=r"feature 'x' has no vocabulary .*give it a hash method"):
        encode(one_column([1, 2]), fitted)
    data = encode(one_column([1, 5]), fitted, key_features=frozenset({"x"}))
    assert data.column("x").tolist() == [1, 5]
    assert data.unseen == {}
    with pytest.raises(DataError, match=r"feature 'x' has no vocabulary .*unseen ids are unknown"):
        data.unseen_rows("x")


def test_labels_may_be_left_out() -> None:
    fitted = fit(frame(), SCHEMA)
    data = encode(frame().drop("click", "rating"), fitted, labels=False)
    assert data.labels.shape == (4, 0)
    with pytest.raises(DataError, match=r"label 'click': column 'click' is not in the data"):
        encode(frame().drop("click"), fitted)


def test_no_rows_and_bags_of_no_ids_work() -> None:
    fitted = fit(frame(), SCHEMA)
    assert len(encode(frame().clear(), fitted)) == 0
    data = encode(
        frame().with_columns(tags=pl.lit([], pl.List(pl.String)), tag_weights=pl.lit([], pl.List(pl.Float64))), fitted
    )
    assert data.jagged["tags"].offsets.tolist() == [0, 0, 0, 0, 0]
    jagged = data.batch(np.array([2, 0])).jagged["tags"]
    assert jagged.offsets.tolist() == [0, 0, 0]
    assert len(jagged.values) == 0


def test_a_null_inside_a_bag_is_the_missing_id() -> None:
    schema = Schema.parse({"features": [{"name": "x", "kind": "bag"}]})
    rows = one_column([[1, None], [1], None])
    assert encode(rows, fit(rows, schema), labels=False).jagged["x"].values.tolist() == [3, 1, 3]


@pytest.mark.parametrize(
    ("train", "later", "message"),
    [
        (
            [1, 2],
            ["1", "2"],
            r"feature 'x': column 'x' holds string ids here, but held int ids .*cast the column to int",
        ),
        (["1", "2"], [1, 2], r"feature 'x': column 'x' holds int ids here, but held string ids .*to string"),
        ([1, 2], [1.0, 2.0], r"column 'x' has type Float64: a fractional number is no id"),
    ],
)
def test_ids_of_another_type_than_in_training_are_refused(train: list, later: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode(one_column(later), fit(one_column(train), SIMPLE))


def test_bad_labels_and_infinite_numbers_are_refused() -> None:
    fitted = fit(frame(), SCHEMA)
    with pytest.raises(DataError, match=r"label 'click': value 2 in column 'click' is neither 0 nor 1"):
        encode(frame().with_columns(click=pl.lit(2)), fitted)
    with pytest.raises(DataError, match=r"feature 'age': column 'age' holds 4 infinite"):
        encode(frame().with_columns(age=pl.lit(math.inf)), fitted)


def test_key_features_must_be_features_with_ids() -> None:
    fitted = fit(frame(), SCHEMA)
    with pytest.raises(DataError, match=r"feature 'age' is numeric, so it has no keys"):
        encode(frame(), fitted, key_features=frozenset({"age"}))


@given(st.lists(st.none() | st.text(max_size=3), min_size=2))
def test_decoding_gives_the_text_back(values: list[str | None]) -> None:
    rows = one_column(values).with_columns(pl.col("x").cast(pl.String))
    fitted = fit(rows, SIMPLE)
    ids = encode(rows, fitted).column("x")
    assert fitted.vocabularies["x"].inverse(ids).to_list() == values


@given(
    st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=2),
    st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=2),
)
def test_growth_never_moves_an_id(first: list[int], second: list[int]) -> None:
    rows, more = one_column(first), one_column(second)
    fitted = fit(rows, SIMPLE)
    grown = extend(fitted, more)
    assert encode(rows, grown).column("x").tolist() == encode(rows, fitted).column("x").tolist()
    assert grown.vocabularies["x"].inverse(encode(more, grown).column("x")).to_list() == second


def test_files_hold_the_same_arrays_as_memory(tmp_path: Path) -> None:
    rows = pl.concat([frame()] * 5)
    fitted = fit(rows, SCHEMA)
    memory = encode(rows, fitted, key_features=frozenset({"city"}))
    mapped = encode_to(rows, fitted, tmp_path / "train", key_features=frozenset({"city"}))
    assert same(memory, mapped)
    assert isinstance(mapped.ids, np.memmap)
    again = EncodedData.open(tmp_path / "train")
    assert same(memory, again)
    assert again.fitted.version == fitted.version
    assert again.key_features == {"city"}
    assert not (tmp_path / "train.tmp").exists()


def test_blocks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pl.concat([frame()] * 5)
    fitted = fit(rows, SCHEMA)
    whole = encode(rows, fitted)
    monkeypatch.setattr("recembed.data.columns.BLOCK_ROWS", 3)
    assert same(whole, encode(rows, fitted))
    assert same(whole, encode_to(rows, fitted, tmp_path / "train"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write encoded data to .*train: "):
        encode_to(frame(), fit(frame(), SCHEMA), tmp_path / "file" / "train")
