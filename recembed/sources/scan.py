"""Files to a lazy frame: one file, a folder, a glob or hive partitions, in Parquet, CSV, TSV or Arrow IPC.

``scan`` reads no more than it must to refuse a damaged file by name; the rest of the reading happens when
the frame is collected. Wrap that in ``reading`` so that what goes wrong then is explained the same way.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recembed.errors import DataError
from recembed.sources.faults import check_columnar, check_headers, check_text, explain_read_error, read_header
from recembed.sources.files import Format, Source, find_files

__all__ = ["Format", "Source", "find_files", "reading", "scan"]

TEXT_TYPES: dict[str, Any] = {"int": pl.Int64, "float": pl.Float64, "string": pl.String}
INFER_ROWS = 10_000


def scan(
    source: Source,
    *,
    format: Format | None = None,  # noqa: A002
    has_header: bool = True,
    columns: Sequence[str] | None = None,
    separator: str | None = None,
    encoding: Literal["utf8", "utf8-lossy"] = "utf8",
    dtypes: Mapping[str, Literal["int", "float", "string"]] | None = None,
    hive: bool | None = None,
    check_up_to: int = 256 * 2**20,
) -> pl.LazyFrame:
    """Open ``source`` lazily.

    Args:
        source: A file, a folder, a glob, or a list of these.
        format: The format, where the file name does not tell.
        has_header: Whether the first line of a text file names the columns.
        columns: The column names of a text file without a header.
        separator: What separates the cells of a text file: a comma in CSV, a tab in TSV by default.
        encoding: ``utf8-lossy`` puts U+FFFD in place of bytes that are not UTF-8.
        dtypes: Types of text columns that content does not tell (``string`` keeps leading zeros of ids).
        hive: Read ``key=value`` folder names as columns; by default they are read wherever they stand.
        check_up_to: Text files of at most this many bytes are read once now, to find short rows, which
            polars would fill with nulls without a word. Of larger files only the last line is checked.

    Raises:
        DataError: nothing is there, a file is empty, cut off, not of its format, or unlike its neighbours.
    """
    paths, kind = find_files(source, format)
    partitioned = _has_partitions(source, paths) if hive is None else hive
    if kind in ("parquet", "ipc"):
        check_columnar(paths, kind)
        opener: Any = pl.scan_parquet if kind == "parquet" else pl.scan_ipc
        frame: pl.LazyFrame = opener(paths, hive_partitioning=partitioned, try_parse_hive_dates=False, glob=False)
        return frame
    separator = separator or ("\t" if kind == "tsv" else ",")
    lossy = encoding == "utf8-lossy"
    _check_texts(paths, separator, has_header=has_header, columns=columns, lossy=lossy, check_up_to=check_up_to)
    options = {"separator": separator, "encoding": encoding, "has_header": has_header, "new_columns": columns}
    types = {name: TEXT_TYPES[word] for name, word in (dtypes or {}).items()}
    with reading(paths, separator=separator):
        return _scan_texts(paths, types, options, partitioned=partitioned)


@contextmanager
def reading(source: Source, *, separator: str | None = None) -> Iterator[None]:
    """Turn what polars raises inside the block into a ``DataError`` that names the file, the line and the fix.

    >>> with reading("clicks.csv"):
    ...     pl.DataFrame({"click": [1]}).lazy().collect().height
    1
    """
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, DataError) as error:
        cause = error.__cause__ if isinstance(error, DataError) else error
        if not isinstance(cause, pl.exceptions.PolarsError | OSError):
            raise
        paths, _ = find_files(source, "csv")
        raise explain_read_error(cause, paths, separator=separator) from cause


def _check_texts(
    paths: list[Path], separator: str, *, has_header: bool, columns: Sequence[str] | None, lossy: bool, check_up_to: int
) -> None:
    for path in paths:
        check_text(path, separator, lossy=lossy, whole=path.stat().st_size <= check_up_to)
    if has_header:
        check_headers(paths, separator)
    if columns is not None and len(columns) != (found := len(read_header(paths[0], separator))):
        raise DataError(f"{paths[0]}: columns = {list(columns)}, but the first line has {found} cells; name each one")


def _scan_texts(
    paths: list[Path], types: dict[str, Any], options: dict[str, Any], *, partitioned: bool
) -> pl.LazyFrame:
    if partitioned:
        parts = [_scan_texts([path], types, options, partitioned=False) for path in paths]
        marked = [part.with_columns(_partition_of(path)) for part, path in zip(parts, paths, strict=True)]
        return pl.concat(marked, how="vertical_relaxed")
    frame = pl.scan_csv(
        paths,
        schema_overrides=types or None,
        infer_schema_length=INFER_ROWS,
        glob=False,
        truncate_ragged_lines=False,
        **options,
    )
    frame.collect_schema()
    return frame


def _partition_of(path: Path) -> list[pl.Expr]:
    pairs = [part.split("=", 1) for part in path.parts[:-1] if "=" in part]
    return [
        pl.lit(int(value), pl.Int64).alias(key) if value.lstrip("-").isdigit() else pl.lit(value).alias(key)
        for key, value in pairs
    ]


def _has_partitions(source: Source, paths: list[Path]) -> bool:
    """Whether a ``key=value`` folder stands below what the caller named (a folder above it is no partition)."""
    if not isinstance(source, str | Path):
        return any(_has_partitions(place, paths) for place in source)
    root = Path(source).expanduser()
    if root.is_file():
        return False
    while any(sign in str(root) for sign in "*?["):
        root = root.parent
    below = [path.relative_to(root).parent for path in paths if path.is_relative_to(root)]
    return any("=" in part for folder in below for part in folder.parts)
