"""The proposed schema: one test per rule, and the schemas of real files."""

import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recembed.data.check import check_columns
from recembed.errors import DataError
from recembed.schema.feature import Feature, Schema
from recembed.schema.infer import infer_schema
from recembed.sources import scan

ROWS = 400


def only(name: str, values: object, dtype: pl.DataType | None = None) -> Feature | None:
    schema = infer_schema(pl.DataFrame({name: pl.Series(values, dtype=dtype)}))  # type: ignore[arg-type]
    return schema.features[0] if schema.features else None


def kind_of(name: str, values: object, dtype: pl.DataType | None = None) -> str | None:
    feature = only(name, values, dtype)
    return None if feature is None else feature.kind


@pytest.mark.parametrize("name", ["label", "click", "Clicked", "is_click", "target"])
def test_label_by_name(name: str) -> None:
    schema = infer_schema(pl.DataFrame({"a": [1, 2], name: [0, 1]}))
    assert [(label.name, label.positive_from) for label in schema.labels] == [(name, None)]
    assert schema.names == ("a",)


def test_label_by_argument_and_the_threshold_of_ratings() -> None:
    frame = pl.DataFrame({"stars": [1, 5, 3], "click": [0, 1, 1]})
    schema = infer_schema(frame, label="stars")
    assert [(label.name, label.positive_from) for label in schema.labels] == [("stars", 4.0)]
    assert schema.names == ("click",)
    assert infer_schema(pl.DataFrame({"rating": [2.0, 10.0]})).labels[0].positive_from == 8.0
    assert infer_schema(pl.DataFrame({"click": [True, False]})).labels[0].positive_from is None
    assert infer_schema(pl.DataFrame({"a": [1]})).labels == ()


def test_label_that_is_missing_or_text() -> None:
    frame = pl.DataFrame({"clicks": [0, 1], "name": ["a", "b"]})
    with pytest.raises(DataError, match="label column 'click' is missing; did you mean 'clicks'"):
        infer_schema(frame, label="click")
    with pytest.raises(DataError, match="label column 'name' is String; expected 0/1 or a number"):
        infer_schema(frame, label="name")


def test_no_rows() -> None:
    with pytest.raises(DataError, match="no rows; a schema cannot be proposed from nothing"):
        infer_schema(pl.DataFrame({"a": []}))


def test_timestamp_by_name_then_by_type() -> None:
    day = [datetime.date(2024, 1, 1)]
    assert infer_schema(pl.DataFrame({"a": [1], "day": day, "ts": [5]})).timestamp == "ts"
    schema = infer_schema(pl.DataFrame({"a": [1], "day": day, "other": day}))
    assert (schema.timestamp, schema.names) == ("day", ("a",))
    assert infer_schema(pl.DataFrame({"a": [1]})).timestamp is None


def test_lists() -> None:
    ids = [[1, 2], [3]]
    assert kind_of("history", ids) == "sequence"
    assert kind_of("clicked_items", ids) == "sequence"
    assert kind_of("genres", [["a"], ["b", "a"]]) == "bag"
    assert only("vector", [[0.5, 1.0], [1.0, 2.0]]) == Feature(name="vector", kind="numeric", width=2)
    assert only("vector", [[0.5] * 3] * 2, pl.Array(pl.Float32, 3)) == Feature(name="vector", kind="numeric", width=3)
    assert only("ragged", [[0.5], [1.0, 2.0]]) is None


def test_sequence_shares_the_item_table_when_the_ids_are_of_one_type() -> None:
    frame = pl.DataFrame({"item_id": [1, 2], "history": [[1], [2]], "last_words": [["a"], ["b"]]})
    shares = {feature.name: feature.shares for feature in infer_schema(frame).features}
    assert shares == {"item_id": None, "history": "item_id", "last_words": None}


def test_numbers() -> None:
    many = np.arange(ROWS)
    assert kind_of("x", [0.5, 1.0]) == "numeric"
    assert kind_of("x", many) == "numeric"
    assert kind_of("x", many % 10) == "categorical"
    assert kind_of("age", many % 10) == "numeric"
    assert kind_of("unit_price", many % 10) == "numeric"
    assert kind_of("page", many % 10) == "categorical"  # holds the letters of age, not the word
    assert kind_of("I3", many % 10) == "numeric"
    for name in ("shop_id", "ShopId", "colour_code", "section_no", "C14", "user"):
        assert kind_of(name, many) == "categorical", name
    assert kind_of("flag", [True, False]) == "categorical"


@pytest.mark.parametrize("separator", ["|", ";", ",", " "])
def test_text_with_a_separator_is_a_bag(separator: str) -> None:
    words = ["war", "love", "crime", "comedy"]
    cells = [separator.join(words[:k] + words[k + 1 : n]) for k in range(3) for n in range(2, 5)]
    assert only("genres", cells) == Feature(name="genres", kind="bag", separator=separator)


def test_text_without_recurring_words_is_an_id_or_left_out() -> None:
    titles = [f"word{n} other{n}" for n in range(ROWS)]
    assert kind_of("title", titles) == "categorical"
    assert kind_of("city", ["Ulm", "Bad Tölz"] * 10) == "categorical"
    unlike = [" ".join(f"w{n}x{k}" for k in range(12)) for n in range(ROWS)]
    assert only("text", unlike) is None


def test_roles_go_to_the_first_id_of_each_name() -> None:
    frame = pl.DataFrame({"uid": [1], "user_id": [2], "movieId": [3], "item": [4], "visitor_age": [5]})
    roles = {feature.name: feature.role for feature in infer_schema(frame).features}
    assert roles == {"uid": "user", "user_id": None, "movieId": "item", "item": None, "visitor_age": None}


def test_rows_beyond_max_rows_are_not_read() -> None:
    frame = pl.LazyFrame({"x": [1] * 10 + list(range(1000))})
    assert infer_schema(frame, max_rows=10).features[0].kind == "categorical"
    assert infer_schema(frame).features[0].kind == "numeric"


def test_proposal_survives_yaml_and_fits_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pl.DataFrame({"user_id": [1, 2], "genres": ["a|b", "b"], "price": [0.5, None], "click": [0, 1]}).write_csv(path)
    schema = infer_schema(scan(path))
    assert Schema.from_yaml(schema.to_yaml()) == schema
    check_columns(scan(path), schema)


def test_movielens_by_the_rules(real_data: Path) -> None:
    ratings = infer_schema(pl.scan_parquet(real_data / "ml100k/ratings.parquet"))
    assert ratings == Schema.parse(
        {
            "features": [{"name": "user_id", "role": "user"}, {"name": "item_id", "role": "item"}],
            "labels": [{"name": "rating", "positive_from": 4}],
            "timestamp": "timestamp",
        }
    )
    items = infer_schema(pl.scan_parquet(real_data / "ml100k/items.parquet"))
    assert items["genres"] == Feature(name="genres", kind="bag", separator=" ")
    assert items["year"].kind == "numeric"


@pytest.mark.parametrize("folder", ["criteo_sample", "avazu_sample", "frappe", "hm_week", "open_bandit_small", "ml1m"])
def test_proposals_fit_real_files(folder: str, real_data: Path) -> None:
    for path in sorted((real_data / folder).glob("*.parquet")):
        frame = pl.scan_parquet(path)
        schema = infer_schema(frame, max_rows=5_000)
        assert Schema.from_yaml(schema.to_yaml()) == schema
        check_columns(frame, schema)
