"""The report's numbers, by hand."""

import sys

import polars as pl
import pytest

from recembed.data.encode import encode
from recembed.data.fit import fit
from recembed.data.report import describe, report
from tests.data.rows import SCHEMA, frame


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    fitted = fit(frame(), SCHEMA)
    later = frame().with_columns(item=pl.Series([7, 1, 2, 3]), user=None)[:4]
    later = later.with_columns(pl.col("user").cast(pl.Int64))
    splits = {"train": encode(frame(), fitted, key_features=frozenset({"user"})), "test": encode(later, fitted)}
    return report(fitted, splits)


def line(table: pl.DataFrame, split: str, name: str) -> dict:
    rows = table.filter(split=split, name=name).to_dicts()
    assert len(rows) == 1
    return {key: value for key, value in rows[0].items() if value is not None and key not in ("split", "name")}


def test_ids(table: pl.DataFrame) -> None:
    user = {"kind": "categorical", "rows": 4, "vocabulary": 2}
    assert line(table, "train", "user") == user | {"distinct": 2, "missing_rate": 0.25, "unseen_rate": 0}
    assert line(table, "test", "user") == user | {"distinct": 0, "missing_rate": 1, "unseen_rate": 0}
    assert line(table, "train", "city")["unseen_rate"] == 0.5
    assert line(table, "test", "item")["unseen_rate"] == 0.75
    assert line(table, "train", "history") == {
        "kind": "sequence",
        "rows": 4,
        "vocabulary": 4,
        "distinct": 2,
        "missing_rate": 0.5,
        "unseen_rate": 0,
        "mean_length": 0.75,
    }


def test_numbers_and_labels(table: pl.DataFrame) -> None:
    age = {"min": 20, "q25": 25, "median": 30, "q75": 35, "max": 40, "mean": 30, "missing_rate": 0.5}
    assert line(table, "train", "age") == age | {"kind": "numeric", "rows": 4}
    assert line(table, "train", "vector")["missing_rate"] == 0.25
    assert line(table, "train", "liked") == {"kind": "label", "rows": 4, "mean": 0.5}


def test_blocks_make_no_difference(table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = fit(frame(), SCHEMA)
    monkeypatch.setattr(sys.modules[report.__module__], "_BLOCK", 3)
    parts = report(fitted, {"train": encode(frame(), fitted, key_features=frozenset({"user"}))})
    assert parts.equals(table.filter(split="train"))


def test_quantiles_of_many_rows_are_those_of_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    many = pl.concat([frame()] * 500).with_columns(age=pl.int_range(2000).cast(pl.Float64))
    monkeypatch.setattr(sys.modules[report.__module__], "_BLOCK", 100)
    monkeypatch.setattr(sys.modules[report.__module__], "_SAMPLED", 400)
    age = line(report(fit(many, SCHEMA), {"train": encode(many, fit(many, SCHEMA))}), "train", "age")
    assert (age["min"], age["max"], age["mean"], age["missing_rate"]) == (0, 1999, 999.5, 0)
    assert age["median"] == pytest.approx(1000, abs=100)


def test_text_has_a_line_per_row_and_dashes_where_nothing_applies(table: pl.DataFrame) -> None:
    lines = describe(table).splitlines()
    assert len(lines) == table.height + 1
    assert lines[0].split()[:3] == ["split", "name", "kind"]
    assert lines[-1].split()[:6] == ["test", "liked", "label", "4", "-", "-"]


def test_an_empty_split_has_no_rates() -> None:
    fitted = fit(frame(), SCHEMA)
    empty = report(fitted, {"test": encode(frame().clear(), fitted)})
    assert line(empty, "test", "user") == {"kind": "categorical", "rows": 0, "vocabulary": 2, "distinct": 0}
    assert line(empty, "test", "age") == {"kind": "numeric", "rows": 0}
    assert line(empty, "test", "click") == {"kind": "label", "rows": 0}
