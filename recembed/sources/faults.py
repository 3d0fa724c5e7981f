"""What is wrong with a file: the checks made on opening it, and the explanation of a failed read."""

import codecs
import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from recembed.errors import DataError

__all__ = ["check_columnar", "check_headers", "check_text", "explain_read_error", "read_header"]

_CHUNK = 1 << 20
_TAIL = 1 << 16


def check_columnar(paths: Sequence[Path], kind: Literal["parquet", "ipc"]) -> None:
    """Refuse a Parquet or IPC file that is empty, cut off or unlike the first of ``paths`` (reads footers only)."""
    first: dict[str, pl.DataType] | None = None
    for path in paths:
        try:
            names = pl.read_parquet_schema(path) if kind == "parquet" else pl.scan_ipc(path).collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise explain_read_error(error, [path], kind=kind) from error
        if first is None:
            first = dict(names)
        elif dict(names) != first:
            raise DataError(f"{path}: {_difference(dict(names), first)} {paths[0]}; give files of one kind")


def _difference(mine: dict[str, pl.DataType], other: dict[str, pl.DataType]) -> str:
    if missing := [name for name in other if name not in mine]:
        return f"column {missing[0]!r} is missing; it is in"
    if extra := [name for name in mine if name not in other]:
        return f"column {extra[0]!r} is not in"
    if other_type := [name for name in mine if mine[name] != other[name]]:
        name = other_type[0]
        return f"column {name!r} is {mine[name]}, but {other[name]} in"
    return f"the columns stand in another order ({', '.join(mine)}) than in"


def check_headers(paths: Sequence[Path], separator: str) -> None:
    """Refuse a text file whose header names other columns than that of the first file."""
    first: list[str] | None = None
    for path in paths:
        names = read_header(path, separator)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: the header names column {twice!r} twice; rename one of them")
        first = first or names
        if names != first:
            mine, other = ({name: pl.DataType() for name in header} for header in (names, first))
            raise DataError(f"{path}: {_difference(mine, other)} {paths[0]}; give files of one kind")


def check_text(path: Path, separator: str, *, lossy: bool = False, whole: bool = True) -> None:
    """Refuse a text file that is empty, not UTF-8, has a ragged row or ends inside one.

    One lazy pass counts the separators outside of quotes, line by line; a line that looks wrong is then read
    by the rules of quoting, which decide. ``whole=False`` looks at the last line only.
    """
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; write it again")
    if path.suffix in (".gz", ".zst") or (lossy and whole):
        return
    if not whole:
        _check_last_line(path, separator)
        return
    expected = len(read_header(path, separator)) - 1
    line = pl.col("line")
    suspect_line = line.str.count_matches(separator, literal=True) != expected
    if any(b'"' in chunk for chunk in _chunks(path)):
        cells_differ = line.str.replace_all('"[^"]*"', "").str.count_matches(separator, literal=True) != expected
        suspect_line = cells_differ | (line.str.count_matches('"', literal=True) % 2 == 1)
    suspects = pl.scan_lines(path).filter(suspect_line).head(1)
    try:
        suspect = suspects.collect(engine="streaming").height > 0
    except (pl.exceptions.PolarsError, OSError) as error:
        raise explain_read_error(error, [path], separator=separator) from error
    if suspect and (fault := _find_row_fault(path, separator)):
        raise DataError(fault)


def read_header(path: Path, separator: str) -> list[str]:
    """Return the cells of the first line of a text file."""
    if path.suffix in (".gz", ".zst"):
        line = str(pl.scan_lines(path).head(1).collect()["line"].item())
    else:
        with path.open("rb") as file:
            line = file.readline().decode("utf-8", "replace")
    return next(csv.reader(iter([line.removeprefix("\ufeff")]), delimiter=separator), [])


def _check_last_line(path: Path, separator: str) -> None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().rstrip(b"\r\n").rsplit(b"\n", 1)
    last = lines[-1].decode("utf-8", "replace")
    expected = len(read_header(path, separator))
    found = len(next(csv.reader(iter([last]), delimiter=separator), []))
    if len(lines) == 2 and last.count('"') % 2 == 0 and found < expected:
        raise DataError(_cut_off(path, "the last line", found, expected))


def _cut_off(path: Path, place: str, found: int, expected: int) -> str:
    cells = f"{found} cell{'s' if found != 1 else ''}, the first line has {expected}"
    return f"{path}: {place} has {cells}: the file looks cut off; copy it again or delete that line"


def _find_row_fault(path: Path, separator: str) -> str | None:
    """Read ``path`` row by row (slow, bounded memory) and describe the first row that does not fit."""
    with path.open(encoding="latin-1", newline="") as file:
        rows = csv.reader(file, delimiter=separator, strict=True)
        try:
            expected = len(next(rows))
            for row in rows:
                if len(row) == expected or (not row and expected == 1):
                    continue
                if 0 < len(row) < expected and next(rows, None) is None:
                    return _cut_off(path, f"line {rows.line_num}, the last one,", len(row), expected)
                return _ragged(path, rows.line_num - bool(0 < len(row) < expected), len(row), expected)
        except csv.Error as error:
            if "end of data" in str(error):
                return f"{path}: a quote is opened and never closed (the file ends at line {rows.line_num}); close it"
            return f'{path}: line {rows.line_num}: a quoted cell goes on after its closing quote; write quotes inside as ""'
    return None


def _ragged(path: Path, line: int, found: int, expected: int) -> str:
    if found == 0:
        return f"{path}: line {line} is empty; delete it"
    hint = " (a separator inside a cell must stand in quotes)" if found > expected else ""
    return f"{path}: line {line} has {found} cells, the first line has {expected}; mend the line{hint}"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _find_encoding_fault(path: Path) -> str | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    start, line = 0, 1
    for chunk in itertools.chain(_chunks(path), [b""]):
        held = decoder.getstate()[0]
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            text = held + chunk
            offset = start - len(held) + error.start
            line += text[: error.start].count(b"\n")
            guess = "utf-16" if offset == 0 and text[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
            return (
                f"{path}: byte {offset} (line {line}) is not UTF-8: 0x{text[error.start]:02x}; write the file as UTF-8 "
                f"(iconv -f {guess} -t utf-8), or read it with encoding='utf8-lossy'"
            )
        start += len(chunk)
        line += chunk.count(b"\n")
    return None


def explain_read_error(
    error: Exception, paths: Iterable[Path], *, separator: str | None = None, kind: str | None = None
) -> DataError:
    """Return a ``DataError`` that says which of ``paths`` broke, where and how to mend it.

    Args:
        error: What polars or the system raised.
        paths: The files that were being read.
        separator: The cell separator of text files, where it is not the one of the file name.
        kind: The format, where the file name does not tell.
    """
    paths = list(paths)
    for path in paths:
        fault = _fault_of(path, separator, kind)
        if fault is not None:
            return DataError(fault)
    where = str(paths[0]) if len(paths) == 1 else f"one of {len(paths)} files ({paths[0]}, …)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if "could not parse" in lines[0]:
        fix = "give the column's type with dtypes= (int, float or string), or mend the cell"
        return DataError(f"{where}: {lines[0]}; {fix}")
    fix = "; the file may be damaged: copy or write it again" if isinstance(error, pl.exceptions.ComputeError) else ""
    return DataError(f"{where}: cannot be read: {lines[0]}{fix}")


def _fault_of(path: Path, separator: str | None, kind: str | None) -> str | None:
    if not path.is_file():
        return f"{path}: no such file; it was there when the scan began"
    if path.stat().st_size == 0:
        return f"{path}: the file is empty; write it again"
    suffix = kind or path.suffix.lower().lstrip(".")
    if suffix in ("parquet", "pq"):
        return _columnar_fault(path, "Parquet", b"PAR1")
    if suffix in ("ipc", "arrow", "feather"):
        return _columnar_fault(path, "Arrow IPC", b"ARROW1")
    if suffix in ("gz", "zst"):
        return None
    return _find_encoding_fault(path) or _find_row_fault(path, separator or ("\t" if suffix in ("tsv", "tab") else ","))


def _columnar_fault(path: Path, name: str, magic: bytes) -> str | None:
    with path.open("rb") as file:
        head = file.read(len(magic))
        file.seek(max(0, path.stat().st_size - len(magic)))
        tail = file.read()
    if head != magic:
        return f"{path}: not a {name} file (it does not start with {magic.decode()}); check the name or give format="
    if tail != magic:
        return f"{path}: the {name} file is cut off ({path.stat().st_size:,} bytes, no footer); copy it again"
    return None
