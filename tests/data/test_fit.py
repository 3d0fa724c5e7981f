"""Fit: counts, folding, statistics and the refusals, by hand."""

import math
import sys

import numpy as np
import polars as pl
import pytest

from recembed.data.fit import extend, fit
from recembed.errors import DataError
from recembed.schema.feature import Schema
from tests.data.rows import SCHEMA, frame


def simple(**feature: object) -> Schema:
    return Schema.parse({"features": [{"name": "x", **feature}], "labels": [{"name": "y"}]})


def test_counts_of_every_kind_by_hand() -> None:
    fitted = fit(frame(), SCHEMA)
    counts = {
        name: dict(zip(v.values.to_list(), v.counts.tolist(), strict=True)) for name, v in fitted.vocabularies.items()
    }
    assert counts["user"] == {10: 2, 20: 1}
    assert counts["city"] == {"Rome": 2}
    assert counts["genres"] == {"a": 1, "b": 2}
    assert counts["item"] == {9: 3, 7: 2, 5: 1, 8: 1}  # the last two of each history, and the items
    assert counts["tags"] == {"x": 2, "y": 1, "z": 1}
    assert fitted.vocabularies["city"].oov_count == 2
    assert fitted.vocabularies["user"].missing_count == 1
    assert fitted.missing_rates == {"user": 0.25, "city": 0, "genres": 0.5, "history": 0.5, "item": 0, "tags": 0.25}
    assert fitted.label_rates == {"click": 0.5, "liked": 0.5}
    assert fitted.key_types["user"] == "int"
    assert fitted.key_types["genres"] == "string"
    assert fitted.rows == 4


def test_numeric_statistics_by_hand() -> None:
    fitted = fit(frame(), SCHEMA)
    age, vector = fitted.numeric["age"], fitted.numeric["vector"]
    assert age.mean.tolist() == [30]
    assert age.std.tolist() == [10]
    assert age.missing_rate.tolist() == [0.5]
    assert (age.min.tolist(), age.max.tolist()) == ([20], [40])
    assert age.log_mean[0] == pytest.approx((math.log(21) + math.log(41)) / 2)
    assert age.quantiles[0, [0, 128, 256]].tolist() == [20, 30, 40]
    assert vector.mean.tolist() == [3, 4]
    assert vector.quantiles.shape == (2, 257)
    assert vector.missing_rate.tolist() == [0.25, 0.25]


def test_top_k_keeps_the_most_frequent_and_folds_the_rest() -> None:
    rows = pl.DataFrame({"x": ["c", "a", "b", "a", "b", "a"], "y": [0, 1, 0, 1, 0, 1]})
    vocabulary = fit(rows, simple(top_k=2)).vocabularies["x"]
    assert vocabulary.values.to_list() == ["a", "b"]
    assert vocabulary.oov_count == 1


def test_counts_are_the_same_however_the_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rows = pl.DataFrame({"x": rng.integers(0, 500, 2000), "n": rng.normal(size=2000), "y": rng.integers(0, 2, 2000)})
    schema = Schema.parse({"features": [{"name": "x"}, {"name": "n", "kind": "numeric"}], "labels": [{"name": "y"}]})
    whole = fit(rows, schema)
    parts = [rows[i : i + 7] for i in range(0, 2000, 7)]
    monkeypatch.setattr(sys.modules["recembed.data.fit"], "blocks", lambda *_, **__: iter(parts))
    cut = fit(rows, schema)
    assert cut.vocabularies["x"].keys.tolist() == whole.vocabularies["x"].keys.tolist()
    assert cut.vocabularies["x"].counts.tolist() == whole.vocabularies["x"].counts.tolist()
    assert cut.numeric["n"].mean == pytest.approx(whole.numeric["n"].mean, rel=1e-12)
    assert cut.numeric["n"].quantiles.tolist() == whole.numeric["n"].quantiles.tolist()


def test_a_refit_of_the_same_rows_has_the_same_version_and_other_rows_another() -> None:
    rows = frame()
    assert fit(rows, SCHEMA).version == fit(rows.lazy(), SCHEMA).version
    assert fit(rows, SCHEMA).version != fit(rows.with_columns(user=pl.col("user") + 1), SCHEMA).version


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 3], r"label 'y': value 3 in column 'y' is neither 0 nor 1; .*positive_from"),
        ([1, 1, 1], r"label 'y': all 3 rows are 1, so there is nothing to learn"),
        ([0, 0, 0], r"label 'y': all 3 rows are 0"),
        ([0, None, 1], r"label 'y': column 'y' is missing \(null or NaN\) in 1 of 3 rows"),
        ([0.0, math.nan, 1.0], r"label 'y': column 'y' is missing \(null or NaN\) in 1 of 3 rows"),
        (["0", "1", "0"], r"label 'y': column 'y' has type String: expected 0/1"),
    ],
)
def test_bad_labels_are_refused(values: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(pl.DataFrame({"x": [1, 2, 3], "y": values}), simple())


@pytest.mark.parametrize("bad", [math.inf, -math.inf, 1e39])
def test_infinite_numbers_are_refused_with_their_count(bad: float) -> None:
    rows = pl.DataFrame({"x": [1.0, bad, bad], "y": [0, 1, 1]})
    with pytest.raises(DataError, match=r"feature 'x': column 'x' holds 2 infinite .*numbers"):
        fit(rows, simple(kind="numeric"))


def test_no_rows_and_missing_columns_are_refused() -> None:
    with pytest.raises(DataError, match=r"the data has no rows, so there is nothing to fit"):
        fit(pl.DataFrame({"x": [], "y": []}, schema={"x": pl.Int64, "y": pl.Int64}), simple())
    with pytest.raises(DataError, match=r"feature 'x': column 'xx' is not in the data; did you mean 'x'\?"):
        fit(pl.DataFrame({"x": [1], "y": [1]}), simple(column="xx"))
    with pytest.raises(DataError, match=r"label 'y': column 'y' is not in the data"):
        fit(pl.DataFrame({"x": [1]}), simple())


@pytest.mark.parametrize(
    ("feature", "column", "message"),
    [
        ({"kind": "numeric"}, ["a", "b"], r"has type String: expected numbers"),
        ({"kind": "numeric", "width": 2}, [1.0, 2.0], r"expected a list of 2 numbers a row"),
        ({"kind": "numeric", "width": 2}, [[1.0, 2.0], [1.0]], r"holds 1 numbers: expected width = 2"),
        ({"kind": "bag"}, ["a", "b"], r"expected a list of ids a row; for text cells set the feature's separator"),
        ({}, [1.5, 2.0], r"a fractional number is no id"),
        ({}, [[1], [2]], r"expected integers or strings as ids"),
    ],
)
def test_columns_of_another_type_are_refused(feature: dict, column: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(pl.DataFrame({"x": column, "y": [0, 1]}), simple(**feature))


def test_shared_vocabularies_need_one_id_type() -> None:
    schema = Schema.parse({"features": [{"name": "item"}, {"name": "last", "shares": "item"}]})
    with pytest.raises(DataError, match=r"feature 'last' holds string ids, but 'item', whose vocabulary it shares"):
        fit(pl.DataFrame({"item": [1], "last": ["1"]}), schema)


def test_text_cells_take_the_integers_of_the_vocabulary_they_share() -> None:
    schema = Schema.parse(
        {"features": [{"name": "item"}, {"name": "past", "kind": "sequence", "separator": " ", "shares": "item"}]}
    )
    fitted = fit(pl.DataFrame({"item": [1, 2], "past": ["2 3", ""]}), schema)
    assert dict(zip(fitted.vocabularies["item"].values, fitted.vocabularies["item"].counts, strict=True)) == {
        1: 1,
        2: 2,
        3: 1,
    }
    with pytest.raises(DataError, match=r"column 'past' holds text that is no integer"):
        fit(pl.DataFrame({"item": [1], "past": ["2 b"]}), schema)


def test_weights_of_another_length_are_refused() -> None:
    rows = frame().with_columns(tag_weights=pl.Series([[1.0], [0.5], [], [3.0]]))
    with pytest.raises(DataError, match=r"feature 'tags': row 1 of its block has 2 ids but another number of weights"):
        fit(rows, SCHEMA)


def test_growth_appends_new_ids_and_keeps_the_old_ones() -> None:
    fitted = fit(frame(), SCHEMA)
    more = frame().with_columns(user=pl.Series([30, 30, 20, 40]), city=pl.Series(["Oslo", "Oslo", "Kyiv", "Rome"]))
    grown = extend(fitted, more)
    assert grown.vocabularies["user"].values.to_list() == [10, 20, 30, 40]
    assert grown.vocabularies["user"].counts.tolist() == [2, 2, 2, 1]
    assert grown.vocabularies["city"].values.to_list() == ["Rome", "Oslo"]  # Kyiv is below min_count
    assert grown.vocabularies["city"].counts.tolist() == [3, 2]
    assert grown.vocabularies["city"].oov_count == 3
    assert grown.rows == 8
    assert grown.numeric == fitted.numeric
    assert grown.version != fitted.version


def test_growth_refuses_ids_of_another_type() -> None:
    with pytest.raises(DataError, match=r"feature 'city': column 'city' holds int ids here, but held string ids"):
        extend(fit(frame(), SCHEMA), frame().with_columns(city=pl.lit(1)))


def test_features_without_a_vocabulary_are_not_counted() -> None:
    fitted = fit(pl.DataFrame({"x": [1, None, 3], "y": [0, 1, 0]}), simple(vocabulary=False))
    assert fitted.vocabularies == {}
    assert fitted.missing_rates["x"] == pytest.approx(1 / 3)
    with pytest.raises(DataError, match=r"feature 'x' has no vocabulary .*give it a vocabulary or a hash method"):
        fitted.num_embeddings("x")
