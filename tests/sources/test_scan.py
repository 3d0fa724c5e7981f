"""Reading well-formed files in every shape, and the words of the errors for bad ones."""

import datetime
import gzip
import re
from pathlib import Path

import polars as pl
import pytest

from recembed.data.check import check_columns
from recembed.data.columns import blocks
from recembed.errors import DataError
from recembed.schema.feature import Schema
from recembed.sources import find_files, reading, scan
from recembed.sources.faults import explain_read_error

ROWS = pl.DataFrame({"user": [1, 2, 3], "city": ["Ulm", "Bad, Tölz", None], "price": [0.5, None, 2.0]})


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(source: object, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        scan(source, **options)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.tsv", "rows.arrow", "rows.feather"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        ROWS.write_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        ROWS.write_csv(path, separator="," if path.suffix == ".csv" else "\t")
    else:
        ROWS.write_ipc(path)
    assert scan(path).collect().equals(ROWS)
    assert scan(str(path)).collect().equals(ROWS)


def test_format_argument_rules_over_the_name(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.txt", "a;b\n1;x\n")
    assert scan(path, format="csv", separator=";").collect().rows() == [(1, "x")]
    message = refused(path)
    assert "unknown format" in message
    assert "give format=" in message


def test_text_without_a_header_takes_its_column_names(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.tsv", "1\tx\n2\ty\n")
    frame = scan(path, has_header=False, columns=["id", "letter"]).collect()
    assert frame.to_dict(as_series=False) == {"id": [1, 2], "letter": ["x", "y"]}
    message = refused(path, has_header=False, columns=["id"])
    assert "columns = ['id'], but the first line has 2 cells; name each one" in message


def test_compressed_text_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv.gz", gzip.compress(b"a,b\n1,x\n"))
    assert scan(path).collect().rows() == [(1, "x")]


def test_string_type_keeps_leading_zeros(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", "zip,n\n00501,1\n")
    assert scan(path, dtypes={"zip": "string"}).collect().rows() == [("00501", 1)]


def test_folder_glob_and_list_read_the_same_sorted_files(tmp_path: Path) -> None:
    for name, value in (("b.csv", 2), ("a.csv", 1), ("deep/c.csv", 3)):
        write(tmp_path, name, f"x\n{value}\n")
    write(tmp_path, "_SUCCESS", "")
    write(tmp_path, ".hidden.csv", "x\n9\n")
    write(tmp_path, "notes.md", "no data")
    assert scan(tmp_path).collect()["x"].to_list() == [1, 2, 3]
    assert scan(f"{tmp_path}/**/*.csv").collect()["x"].to_list() == [1, 2, 3]
    assert scan([tmp_path / "b.csv", tmp_path / "a.csv"]).collect()["x"].to_list() == [2, 1]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow"])
def test_hive_partitions_become_columns(tmp_path: Path, suffix: str) -> None:
    for day in (1, 2):
        folder = tmp_path / f"day={day}" / "shop=ulm"
        folder.mkdir(parents=True)
        frame = pl.DataFrame({"x": [10 * day]})
        {"parquet": frame.write_parquet, "csv": frame.write_csv, "arrow": frame.write_ipc}[suffix](
            folder / f"p.{suffix}"
        )
    expected = {"x": [10, 20], "day": [1, 2], "shop": ["ulm", "ulm"]}
    assert scan(tmp_path).collect().to_dict(as_series=False) == expected
    assert scan(f"{tmp_path}/*/*/*.{suffix}").collect().to_dict(as_series=False) == expected
    assert scan(tmp_path, hive=False).collect().columns == ["x"]


def test_an_equals_sign_above_the_named_place_is_no_partition(tmp_path: Path) -> None:
    path = write(tmp_path, "run=7/rows.csv", "x\n1\n")
    assert scan(path).collect().columns == ["x"]
    assert scan(path.parent).collect().columns == ["x"]


def test_missing_file_offers_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, "clicks.csv", "a\n1\n")
    assert re.search(
        r"click\.csv: no such file or folder; did you mean 'clicks.csv'\?", refused(tmp_path / "click.csv")
    )


def test_missing_folder_names_what_is_there(tmp_path: Path) -> None:
    for number in range(7):
        write(tmp_path, f"part{number}.csv", "a\n1\n")
    message = refused(tmp_path / "absent" / "deeper")
    assert "no such file or folder" in message
    assert f"{tmp_path} holds part0.csv, part1.csv, part2.csv, part3.csv, part4.csv and 2 more" in message


def test_folder_without_data_files(tmp_path: Path) -> None:
    write(tmp_path, "readme.md", "hello")
    assert "holds no data file (names that end in .parquet" in refused(tmp_path)
    assert "no file matches this pattern" in refused(f"{tmp_path}/*.csv")
    assert "expected at least one file, folder or glob" in refused([])


def test_mixed_formats_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "x\n1\n")
    ROWS.write_parquet(tmp_path / "b.parquet")
    assert "files of several formats (1 csv, 1 parquet)" in refused(tmp_path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.arrow"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    assert f"{name}: the file is empty; write it again" in refused(write(tmp_path, name, ""))


def test_row_with_too_many_cells_is_named_by_line(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", "a,b,c\n1,2,3\n4,5,6,7\n8,9,10\n")
    message = refused(path)
    assert "rows.csv: line 3 has 4 cells, the first line has 3; mend the line" in message
    assert "a separator inside a cell must stand in quotes" in message


def test_row_with_too_few_cells_is_named_by_line(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", 'a,b,c\n1,"x\ny",3\n4,5\n8,9,10\n')  # the quoted cell takes two lines
    assert "line 4 has 2 cells, the first line has 3" in refused(path)


def test_empty_line_is_named(tmp_path: Path) -> None:
    assert "line 3 is empty; delete it" in refused(write(tmp_path, "rows.csv", "a,b\n1,2\n\n3,4\n"))


@pytest.mark.parametrize("check_up_to", [0, 2**20])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_cut_off_last_line(tmp_path: Path, check_up_to: int, end: str) -> None:
    path = write(tmp_path, "rows.csv", "a,b,c\n1,2,3\n4,5" + end)
    message = refused(path, check_up_to=check_up_to)
    assert "has 2 cells, the first line has 3: the file looks cut off; copy it again or delete that line" in message


def test_text_that_only_looks_odd_is_accepted(tmp_path: Path) -> None:
    quoted = write(tmp_path, "quoted.csv", '"a,1",b\n1,"x, ""y"",\nz"\n')
    assert scan(quoted).collect().rows() == [(1, 'x, "y",\nz')]
    inches = write(tmp_path, "inches.csv", 'a,b\n5" nail,6" nail\n')
    assert scan(inches).collect().rows() == [('5" nail', '6" nail')]
    assert scan(write(tmp_path, "one.csv", "a\n1\n\n3\n")).collect()["a"].to_list() == [1, None, 3]
    assert scan(write(tmp_path, "bom.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n")).collect().rows() == [(1, 2)]


def test_quote_that_is_never_closed(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", 'a,b\n1,"x\n2,y\n')
    assert "a quote is opened and never closed (the file ends at line 3)" in refused(path)


def test_wrong_encoding_names_byte_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", "a,b\n1,Ulm\n2,Tölz\n".encode("latin-1"))
    message = refused(path)
    assert "byte 13 (line 3) is not UTF-8: 0xf6" in message
    assert "iconv -f latin-1 -t utf-8" in message
    assert scan(path, encoding="utf8-lossy").collect()["b"].to_list() == ["Ulm", "T\ufffdlz"]


def test_utf16_is_called_by_its_name(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "rows.csv", "a,b\n1,2\n".encode("utf-16")))
    assert "byte 0 (line 1) is not UTF-8" in message
    assert "iconv -f utf-16" in message


def test_encoding_fault_is_found_across_chunks(tmp_path: Path) -> None:
    start = b"a,b\n" + b"1,2\n" * ((1 << 18) - 2) + b"1,2"  # the first byte of the two-byte letter ends the first MiB
    good = write(tmp_path, "good.csv", start + "é\n".encode())
    assert len(start) == (1 << 20) - 1
    assert scan(good, dtypes={"b": "string"}).collect().height == (1 << 18) - 1
    bad = write(tmp_path, "bad.csv", start + b"\xc3\n")
    assert f"byte {len(start)} (line {1 << 18}) is not UTF-8: 0xc3" in refused(bad)


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    ROWS.write_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"the Parquet file is cut off ({len(content) // 2:,} bytes, no footer); copy it again" in refused(path)


def test_truncated_ipc(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    ROWS.write_ipc(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "the Arrow IPC file is cut off" in refused(path)


def test_parquet_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.parquet", "user,item\n1,2\n")
    assert "rows.parquet: not a Parquet file (it does not start with PAR1)" in refused(path)


def test_parquet_with_damaged_pages_fails_by_name_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"text": [f"word {number}" for number in range(5000)]}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[100:3000] = b"\xff" * 2900
    path.write_bytes(bytes(content))
    frame = scan(path)
    with pytest.raises(DataError, match=r"rows\.parquet: cannot be read: .*; the file may be damaged"), reading(path):
        frame.collect()


def test_files_of_one_folder_with_different_columns(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1], "b": [1]}).write_parquet(tmp_path / "1.parquet")
    second = tmp_path / "2.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(second)
    assert "2.parquet: column 'b' is missing; it is in" in refused(tmp_path)
    pl.DataFrame({"a": [1], "b": [1], "c": [1]}).write_parquet(second)
    assert "2.parquet: column 'c' is not in" in refused(tmp_path)
    pl.DataFrame({"a": [1], "b": ["x"]}).write_parquet(second)
    assert "2.parquet: column 'b' is String, but Int64 in" in refused(tmp_path)


def test_text_files_of_one_folder_with_different_headers(tmp_path: Path) -> None:
    write(tmp_path, "1.csv", "a,b\n1,2\n")
    write(tmp_path, "2.csv", "b,a\n1,2\n")
    message = refused(tmp_path)
    assert "2.csv: the columns stand in another order (b, a) than in" in message
    assert message.endswith("1.csv; give files of one kind")


def test_column_named_twice(tmp_path: Path) -> None:
    assert "the header names column 'a' twice" in refused(write(tmp_path, "rows.csv", "a,a\n1,2\n"))


def test_cell_of_another_type_found_late_is_explained(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", "a,b\n" + "1,2\n" * 20_000 + "1,x\n")
    frame = scan(path)
    words = r"could not parse `x` as dtype `i64` at column 'b'.*give the column's type"
    with pytest.raises(DataError, match=words), reading(path):
        frame.collect()
    assert scan(path, dtypes={"b": "string"}).collect()["b"][-1] == "x"


def test_file_that_went_away_while_reading(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", "a\n1\n")
    message = str(explain_read_error(OSError("gone"), [tmp_path / "never.csv"]))
    assert "never.csv: no such file; it was there when the scan began" in message
    assert str(explain_read_error(OSError("boom"), [path])) == f"{path}: cannot be read: boom"


def test_reading_explains_an_error_another_room_has_wrapped(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", "a,b\n1,2,3\n")
    frame = pl.scan_csv(path, truncate_ragged_lines=False, schema={"a": pl.Int64, "b": pl.Int64})
    schema = Schema.parse({"features": [{"name": "a"}, {"name": "b"}]})
    with pytest.raises(DataError, match="line 2 has 3 cells"), reading(path):
        list(blocks(frame, schema, labels=False))
    with pytest.raises(DataError, match=r"^mine$"), reading(path):
        raise DataError("mine")


def test_find_files_expands_home_and_sorts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path, "rows.csv", "a\n1\n")
    assert find_files("~/rows.csv") == ([path], "csv")


FRAME = pl.LazyFrame(
    {
        "user": [1],
        "score": [0.5],
        "tags": ["a|b"],
        "items": [[1, 2]],
        "day": [datetime.date(2024, 1, 1)],
        "name": ["x"],
    }
)


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ({"name": "usr"}, "column 'usr' is not in the data; did you mean 'user'?"),
        ({"name": "score"}, "a fractional number is no id"),
        ({"name": "day"}, "expected integers or strings as ids"),
        ({"name": "items"}, "column 'items' has type List(Int64)"),
        ({"name": "name", "kind": "numeric"}, "column 'name' has type String: expected numbers"),
        ({"name": "tags", "kind": "bag"}, "set the feature's separator"),
        ({"name": "user", "kind": "sequence"}, "expected a list of ids a row"),
        ({"name": "user", "kind": "numeric", "width": 3}, "expected a list of 3 numbers a row"),
    ],
)
def test_column_that_is_missing_or_of_another_type(feature: dict[str, object], words: str) -> None:
    with pytest.raises(DataError) as caught:
        check_columns(FRAME, Schema.parse({"features": [feature]}))
    assert words in str(caught.value)


def test_labels_and_timestamp_are_checked_too() -> None:
    text_label = Schema.parse({"features": [], "labels": [{"name": "name"}]})
    with pytest.raises(DataError, match="label 'name': column 'name' has type String: expected 0/1 or numbers"):
        check_columns(FRAME, text_label)
    check_columns(FRAME, text_label, labels=False)
    with pytest.raises(DataError, match="timestamp 'dy' is not in the data; did you mean 'day'"):
        check_columns(FRAME, Schema.parse({"features": [], "timestamp": "dy"}))
    with pytest.raises(DataError, match="timestamp 'items' has type List"):
        check_columns(FRAME, Schema.parse({"features": [], "timestamp": "items"}))


def test_fitting_columns_pass() -> None:
    features = [
        {"name": "user"},
        {"name": "tags", "kind": "bag", "separator": "|"},
        {"name": "items", "kind": "sequence"},
    ]
    check_columns(FRAME, Schema.parse({"features": features, "labels": [{"name": "score"}], "timestamp": "day"}))
