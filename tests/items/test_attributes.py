"""Attributes as codes: what kind a column is, weights of bags, and codes that stay when a catalogue grows."""

import numpy as np
import polars as pl
import pytest

from recembed.errors import DataError
from recembed.items.attributes import AttributeCodes, code_attributes
from recembed.items.faults import Faults
from recembed.items.settings import AttributeConfig


def code(frame: pl.DataFrame, *columns: str | AttributeConfig, faults: Faults | None = None) -> AttributeCodes:
    attributes = tuple(AttributeConfig(column=c) if isinstance(c, str) else c for c in columns)
    return code_attributes(frame, pl.Series(range(frame.height)), attributes, faults or Faults())


def test_kinds_by_what_a_column_holds() -> None:
    frame = pl.DataFrame(
        {"genres": ["a|b|a", "b"], "tags": [["x"], None], "rating": ["PG", None], "year": [1990, None]},
        schema_overrides={"tags": pl.List(pl.String)},
    )
    found = code(frame, "genres", "tags", "rating", "year")
    assert found.weights.tolist() == [[0.5, 0.5, 1, 1], [1, 0, 0, 0]]
    assert found.codes[0, 1] == found.codes[1, 0] and found.codes[1, 1:].tolist() == [0, 0, 0]
    assert found.numbers[0, 0] == 1990 and np.isnan(found.numbers[1, 0])


def test_codes_depend_on_the_values_of_the_item_alone() -> None:
    small = code(pl.DataFrame({"genre": ["a", "b"]}), "genre").codes
    grown = code(pl.DataFrame({"genre": ["new", "b", "a", "z"]}), "genre").codes
    assert (grown[2], grown[1]) == (small[0], small[1]) and len(set(grown.flatten().tolist())) == 4


def test_equal_words_of_two_columns_have_two_codes() -> None:
    found = code(pl.DataFrame({"a": ["x"], "b": ["x"]}), "a", "b").codes
    assert found[0, 0] != found[0, 1]


def test_separators_and_given_kinds() -> None:
    frame = pl.DataFrame({"words": ["a b", "b"], "year": [1, 2]})
    words = AttributeConfig(column="words", kind="bag")
    assert code(frame, words).weights.tolist() == [[0.5, 0.5], [1, 0]]
    assert code(frame, AttributeConfig(column="year", kind="categorical")).codes.shape == (2, 1)


def test_items_of_which_nothing_is_known_are_counted() -> None:
    faults = Faults()
    found = code(pl.DataFrame({"genre": ["a", "", None]}), "genre", faults=faults)
    assert found.present.tolist() == [True, False, False]
    assert faults.lines() == ["attributes: no attribute: 2 items, the first is 1"]


def test_broken_numbers_are_counted() -> None:
    faults = Faults()
    year = AttributeConfig(column="year", kind="numeric")
    found = code(pl.DataFrame({"year": ["1990", "unknown"]}), year, faults=faults)
    assert found.numbers[0, 0] == 1990 and np.isnan(found.numbers[1, 0])
    assert faults.lines()[0] == "attributes: 'year' is no number: 1 item, the first is 1"
    with pytest.raises(DataError, match="expected lists or text for a bag"):
        code(pl.DataFrame({"year": [1]}), AttributeConfig(column="year", kind="bag"))
