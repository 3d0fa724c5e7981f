"""Splits: the parts are disjoint, together are all rows, hold no future row in training, and repeat under a seed."""

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recembed.data.leaks import leak_check
from recembed.data.split import SplitConfig, Splits, split_frame
from recembed.errors import ConfigError, DataError
from recembed.schema.feature import Schema

SCHEMA = Schema.parse(
    {
        "features": [{"name": "user", "role": "user"}, {"name": "item", "role": "item"}, {"name": "x"}],
        "labels": [{"name": "y"}],
        "timestamp": "t",
    }
)


def frame_of(times: list[int]) -> pl.LazyFrame:
    rows = range(len(times))
    columns = {
        "row": list(rows),
        "user": [row % 7 for row in rows],
        "item": [f"i{row % 11}" for row in rows],
        "x": times,
        "y": [row % 2 for row in rows],
        "t": times,
    }
    return pl.LazyFrame(columns)


def rows_of(splits: Splits) -> dict[str, list[int]]:
    return {name: frame.collect()["row"].to_list() for name, frame in splits.items()}


@given(
    times=st.lists(st.integers(0, 40), min_size=20, max_size=60),
    by=st.sampled_from(["time", "user", "item", "random", "rows"]),
    valid=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 2**40),
)
@settings(deadline=None, max_examples=60)
def test_parts_are_disjoint_complete_ordered_and_repeatable(
    times: list[int], by: str, valid: float, test: float, seed: int
) -> None:
    config = SplitConfig.parse({"by": by, "valid": valid, "test": test, "seed": seed})
    try:
        splits = split_frame(frame_of(times), config, SCHEMA)
    except DataError:
        assert by == "time"  # only ties may leave nothing for a part,
        assert max(Counter(times).values()) > 1  # and then there must be ties
        return
    parts = rows_of(splits)
    assert sorted(row for rows in parts.values() for row in rows) == list(range(len(times)))
    assert all(rows == sorted(rows) for rows in parts.values())  # file order is kept
    assert rows_of(split_frame(frame_of(times), config, SCHEMA)) == parts
    held_out = parts["valid"] + parts["test"]
    if by == "time" and held_out:
        assert max(times[row] for row in parts["train"]) < min(times[row] for row in held_out)
    if by == "time" and parts["valid"] and parts["test"]:
        assert max(times[row] for row in parts["valid"]) < min(times[row] for row in parts["test"])
    if by in ("user", "item"):
        groups = [{row % (7 if by == "user" else 11) for row in rows} for rows in parts.values()]
        assert sum(len(group) for group in groups) == len(set().union(*groups))


@pytest.mark.parametrize("by", ["time", "user", "random", "rows"])
def test_rows_of_cold_items_are_all_tested_and_the_others_are_cut_as_usual(by: str) -> None:
    frame = frame_of(list(range(440)))
    splits = split_frame(frame, SplitConfig(by=by, valid=0.1, test=0.2, cold_items=0.3, seed=2), SCHEMA)
    parts = rows_of(splits)
    cold = {row % 11 for row in parts["test"]} - {row % 11 for row in parts["train"] + parts["valid"]}
    assert 1 <= len(cold) <= 6
    known = frame.filter(~pl.col("item").is_in([f"i{item}" for item in cold]))
    usual = rows_of(split_frame(known, SplitConfig(by=by, valid=0.1, test=0.2, seed=2), SCHEMA))
    assert usual["train"] == parts["train"] and usual["valid"] == parts["valid"]
    assert parts["test"] == usual["test"] + [row for row in range(440) if row % 11 in cold]
    other = split_frame(frame, SplitConfig(by=by, valid=0.1, test=0.2, cold_items=0.3, seed=3), SCHEMA)
    assert rows_of(other)["test"] != parts["test"]


def test_cold_items_need_an_item_and_rows_without_one_are_not_cold() -> None:
    frame = pl.LazyFrame({"row": [0, 1, 2], "item": [None, None, "a"], "t": [1, 2, 3]})
    schema = Schema.parse({"features": [{"name": "item", "role": "item"}]})
    splits = split_frame(frame, SplitConfig(by="rows", valid=0, test=0, cold_items=0.999), schema)
    assert rows_of(splits) == {"train": [0, 1], "valid": [], "test": [2]}
    with pytest.raises(ConfigError, match=r"split\.cold_items: the schema has no categorical feature with role: item"):
        split_frame(frame, SplitConfig(cold_items=0.1), Schema.parse({"features": []}))
    with pytest.raises(ConfigError, match="by = 'item' tests on cold items alone; leave cold_items out"):
        SplitConfig.parse({"by": "item", "cold_items": 0.1})


def test_time_split_by_hand() -> None:
    # Sorted: 1 2 2 2 5 6 7 8 9 9. Train wants 6 rows (up to 6), valid 2 (7, 8), test 2 (9, 9).
    frame = frame_of([9, 2, 2, 5, 1, 2, 8, 7, 6, 9])
    parts = rows_of(split_frame(frame, SplitConfig(by="time", valid=0.2, test=0.2), SCHEMA))
    assert parts == {"train": [1, 2, 3, 4, 5, 8], "valid": [6, 7], "test": [0, 9]}


def test_equal_times_go_to_the_earlier_part() -> None:
    # The cut after 6 of 8 rows falls inside the four rows of time 3: all four train.
    frame = frame_of([1, 2, 2, 3, 3, 3, 3, 4])
    parts = rows_of(split_frame(frame, SplitConfig(by="time", valid=0, test=0.25), SCHEMA))
    assert parts == {"train": [0, 1, 2, 3, 4, 5, 6], "valid": [], "test": [7]}


def test_rows_split_by_hand() -> None:
    parts = rows_of(split_frame(frame_of([0] * 10), SplitConfig(by="rows", valid=0.2, test=0.1), SCHEMA))
    assert parts == {"train": [0, 1, 2, 3, 4, 5, 6], "valid": [7, 8], "test": [9]}


@pytest.mark.parametrize("kind", [pl.Date, pl.Datetime("us"), pl.String])
def test_time_may_be_a_date_or_iso_text(kind: pl.DataType) -> None:
    days = pl.LazyFrame({"day": list(range(100))}).select(pl.col("day").cast(pl.Date).cast(kind).alias("t"), row="day")
    config = SplitConfig(by="time", valid=0.1, test=0.2)
    schema = Schema.parse({"features": [], "timestamp": "t"})
    parts = rows_of(split_frame(days, config, schema))
    assert (parts["train"], parts["valid"], parts["test"]) == (
        list(range(70)),
        list(range(70, 80)),
        list(range(80, 100)),
    )


@pytest.mark.parametrize("by", ["user", "random"])
def test_shares_are_near_what_was_asked(by: str) -> None:
    frame = pl.LazyFrame({"user": range(20_000), "row": range(20_000)})
    parts = rows_of(split_frame(frame, SplitConfig.parse({"by": by, "valid": 0.1, "test": 0.2}), SCHEMA))
    assert abs(len(parts["test"]) - 4000) < 5 * (20_000 * 0.2 * 0.8) ** 0.5
    assert abs(len(parts["valid"]) - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5


def test_seeds_differ_and_are_stable() -> None:
    frame = frame_of(list(range(50)))
    tests = [rows_of(split_frame(frame, SplitConfig(seed=seed), SCHEMA))["test"] for seed in (0, 1)]
    assert tests[0] != tests[1]
    assert tests[0] == [6, 7, 29, 36, 49]  # frozen: another machine or version must cut the same rows


def test_same_user_as_number_and_text_goes_to_the_same_part() -> None:
    config = SplitConfig(by="user", valid=0.3, test=0.3)
    numbers = pl.LazyFrame({"user": range(40), "row": range(40)})
    text = numbers.with_columns(pl.col("user").cast(pl.String))
    assert rows_of(split_frame(numbers, config, SCHEMA)) == rows_of(split_frame(text, config, SCHEMA))


def test_column_split_with_and_without_a_map() -> None:
    frame = pl.LazyFrame({"row": [0, 1, 2, 3], "split": ["test", "train", "valid", "train"], "fold": [0, 1, 2, 3]})
    named = split_frame(frame, SplitConfig(by="column", column="split"), SCHEMA)
    assert rows_of(named) == {"train": [1, 3], "valid": [2], "test": [0]}
    config = SplitConfig.parse({"by": "column", "column": "fold", "values": {"train": [0, 3], "test": [1, 2]}})
    assert rows_of(split_frame(frame, config, SCHEMA)) == {"train": [0, 3], "valid": [], "test": [1, 2]}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"by": "tim"}, "by = 'tim'"),
        ({"tets": 0.1}, "unknown key 'tets'; did you mean 'test'?"),
        ({"valid": 0.5, "test": 0.5}, "valid + test = 1 leaves no rows to train on"),
        ({"by": "column"}, "needs column"),
        ({"by": "time", "values": {"train": ["a"]}}, "values belongs to by = 'column'"),
        ({"by": "rows", "column": "t"}, "has no meaning for by = 'rows'"),
        ({"by": "column", "column": "c", "values": {"train": [1], "test": ["1"]}}, "value '1' is listed twice"),
    ],
)
def test_config_errors(raw: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SplitConfig.parse(raw)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"by": "time", "column": "tt"}, "column 'tt' is missing; did you mean 't'?"),
        ({"by": "time"}, "timestamp 't' is missing in 1 rows"),
        ({"by": "time", "column": "f"}, "timestamp 'f' is missing in 1 rows"),
        ({"by": "time", "column": "one", "valid": 0.25, "test": 0.25}, "no time of 'one' is late enough for valid"),
        ({"by": "time", "column": "two", "valid": 0.25, "test": 0.25}, "no time of 'two' is left for valid"),
        ({"by": "rows", "valid": 0.01}, "valid = 0.01 of 4 rows is no row"),
        ({"by": "rows", "valid": 0.45, "test": 0.45}, "leave none to train on"),
        ({"by": "column", "column": "c"}, "value 'tset' of column 'c' stands in no part; did you mean 'test'?"),
        ({"by": "column", "column": "one", "values": {"test": [1]}}, "no row of column 'one' is one of train"),
    ],
)
def test_data_errors(raw: dict[str, object], words: str) -> None:
    columns = {"t": [1, None, 3, 4], "f": [1.0, float("nan"), 2, 3], "one": [1] * 4, "two": [1, 2, 2, 3]}
    frame = pl.LazyFrame({**columns, "c": ["train", "train", "valid", "tset"]})
    with pytest.raises(DataError) as caught:
        split_frame(frame, SplitConfig.parse(raw), SCHEMA)
    assert words in str(caught.value)


@pytest.mark.parametrize(("by", "words"), [("time", "has no timestamp"), ("user", "has no feature with role: user")])
def test_schema_without_the_needed_column(by: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        split_frame(frame_of([1, 2]), SplitConfig.parse({"by": by}), Schema.parse({"features": [{"name": "x"}]}))


def test_leak_check_counts_by_hand() -> None:
    train = pl.LazyFrame(
        {"user": [1, 1, 2, 3], "x": [5, 6, 7, 8], "y": [0, 1, 0, 1], "t": [1, 2, 9, 4], "row": range(4)}
    )
    test = pl.LazyFrame({"user": [1, 3, 9], "x": [6, 0, 0], "y": [1, 0, 0], "t": [2, 5, 6], "row": [7, 8, 9]})
    report = leak_check(Splits(train, train.clear(), test), SCHEMA)
    assert report.rows == {"train": 4, "valid": 0, "test": 3}
    assert report.late_rows == 3  # times 2, 9 and 4 are not earlier than 2
    assert (report.shared_users, report.users) == (2, 3)
    assert report.repeated_rows == 1  # (1, 6, 1, 2); `row` is not in the schema
    assert "2 of 3 test users also have training rows" in report.describe()


def test_leak_check_is_clean_after_a_time_or_user_split() -> None:
    frame = frame_of(list(range(100)))
    assert leak_check(split_frame(frame, SplitConfig(by="time"), SCHEMA), SCHEMA).late_rows == 0
    assert leak_check(split_frame(frame, SplitConfig(by="user", test=0.4), SCHEMA), SCHEMA).shared_users == 0


def test_leak_check_without_timestamp_and_user() -> None:
    schema = Schema.parse({"features": [{"name": "x", "kind": "sequence"}]})
    lists = pl.LazyFrame({"x": [[1, 2], [1, 2], [3]]})
    report = leak_check(Splits(lists, lists.clear(), lists.head(2)), schema)
    assert (report.late_rows, report.users, report.repeated_rows) == (None, None, 2)
    assert (
        Counter(report.describe().splitlines())["2 test rows equal a training row in every column of the schema"] == 1
    )
