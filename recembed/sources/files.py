"""Which files a name means: a file, a folder, a glob, or a list of these; and in which format they are."""

import difflib
import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from recembed.errors import DataError, did_you_mean

__all__ = ["FORMATS", "Format", "Source", "find_files"]

Format = Literal["parquet", "csv", "tsv", "ipc"]
Source = str | Path | Sequence[str | Path]

FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
}
"""File name endings and the format they mean; text files may also end in .gz or .zst."""


def find_files(source: Source, kind: Format | None = None) -> tuple[list[Path], Format]:
    """Return the data files of ``source``, sorted, and their common format.

    Args:
        source: A file, a folder (searched in depth; hidden files and those that start with ``_`` are passed
            over), a glob, or a list of these.
        kind: The format, where the file name does not tell.

    Raises:
        DataError: nothing is there, the format is unknown, or formats are mixed.
    """
    places = [source] if isinstance(source, str | Path) else list(source)
    if not places:
        raise DataError("source = []: expected at least one file, folder or glob")
    paths = [path for place in places for path in _expand(str(place), kind)]
    if kind is not None:
        return paths, kind
    formats = Counter(_format_of(path) for path in paths)
    if len(formats) > 1:
        found = ", ".join(f"{count} {name}" for name, count in formats.items())
        raise DataError(f"{source}: files of several formats ({found}); give format= or point at one of them")
    return paths, next(iter(formats))


def _format_of(path: Path) -> Format:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in (".gz", ".zst") and FORMATS.get(suffixes[-2]) in ("csv", "tsv"):
        return FORMATS[suffixes[-2]]
    if not suffixes or suffixes[-1] not in FORMATS:
        raise DataError(f"{path}: unknown format; give format=, or a name that ends in {', '.join(FORMATS)}")
    return FORMATS[suffixes[-1]]


def _is_data(path: Path, folder: Path, kind: Format | None) -> bool:
    if not path.is_file() or any(part.startswith((".", "_")) for part in path.relative_to(folder).parts):
        return False
    stem = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    return kind is not None or stem.suffix.lower() in FORMATS


def _expand(place: str, kind: Format | None) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(found for found in path.rglob("*") if _is_data(found, path, kind))
        if not files:
            raise DataError(f"{path}: the folder holds no data file (names that end in {', '.join(FORMATS)})")
        return files
    if any(sign in place for sign in "*?["):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise DataError(f"{place}: no file matches this pattern")
        return found
    raise DataError(f"{path}: no such file or folder{_neighbours(path)}")


def _neighbours(path: Path) -> str:
    parent = path.parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    if difflib.get_close_matches(path.name, names, n=1, cutoff=0.6) or 0 < len(names) <= 5:
        return did_you_mean(path.name, names) + f" (in {parent})"
    return f"; {parent} holds {', '.join(names[:5])} and {len(names) - 5} more" if names else f"; {parent} is empty"
