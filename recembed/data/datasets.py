"""Data sets by name: their files, one ready frame each, and the schema of that frame.

The declarations stand in ``datasets.yaml``. Files are looked for in ``$RECEMBED_DATA/<folder>``, then in
``$RECEMBED_CACHE`` (by default ``~/.cache/recembed``), and else fetched from the publisher into the cache.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from pydantic import ConfigDict, Field

from recembed.data.download import Download, download
from recembed.data.recipe import Recipe, build_frame
from recembed.data.split import SplitConfig
from recembed.errors import ConfigError, DataError, did_you_mean
from recembed.schema.feature import Schema

__all__ = ["DATASETS", "Dataset", "DatasetInfo", "cache_folder", "find_dataset", "load_dataset"]


class DatasetInfo(Recipe):
    """One entry of ``datasets.yaml``.

    Attributes:
        name: The name to load it by.
        title: What it is, with its size.
        terms: On what terms it may be used.
        where: Where a person gets it.
        folder: The folder of its files.
        download: How a program gets it, if the publisher offers a direct download.
        columns: The frame's columns in the short form that ``schema`` spells out.
        split: The customary cut.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str
    title: str
    terms: str
    where: str
    folder: str
    download: Download | None = None
    columns: dict[str, Any] = Field(alias="schema")
    split: SplitConfig

    @property
    def schema_of_frame(self) -> Schema:
        """The schema of the set's frame."""
        return _spell_out(self.columns)


@dataclass(frozen=True)
class Dataset:
    """A data set that is on this machine.

    Attributes:
        name: The name it was loaded by.
        description: What it is, with its size.
        terms: On what terms it may be used.
        folder: Where its files lie.
        tables: Every file of the folder by its name without ending, lazy.
        frame: The rows to learn from, attributes joined, lazy.
        schema: The features, labels and timestamp of ``frame``.
        split: The customary cut of ``frame``.
    """

    name: str
    description: str
    terms: str
    folder: Path
    tables: dict[str, pl.LazyFrame]
    frame: pl.LazyFrame
    schema: Schema
    split: SplitConfig


def cache_folder() -> Path:
    """Return the folder that downloaded data sets are kept in."""
    named = os.environ.get("RECEMBED_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "recembed"


def load_dataset(name: str, *, part: str | None = None) -> Dataset:
    """Open a named data set, fetching it first where it is not on this machine.

    Args:
        name: A key of ``DATASETS``.
        part: Keep only the rows of one part, for sets that come in parts (``train``, ``valid``, ``test``).

    Raises:
        ConfigError: there is no such name or part.
        DataError: the files are nowhere and cannot be fetched.
    """
    if name not in DATASETS:
        raise ConfigError(f"data set {name!r} is not known" + did_you_mean(name, DATASETS))
    info = DATASETS[name]
    folder = _find_or_fetch(info)
    tables = {path.stem: pl.scan_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    frame = build_frame(info, tables)
    if part is not None:
        frame = frame.filter(pl.col(_part_column(info, part)) == part)
    present = frame.collect_schema().names()
    schema, split = info.schema_of_frame, info.split
    if schema.timestamp is not None and schema.timestamp not in present:  # editions differ
        schema = schema.model_copy(update={"timestamp": None})
    if split.by == "column" and split.column not in present:
        split = SplitConfig(by="time" if schema.timestamp else "random")
    return Dataset(name, info.title, info.terms, folder, tables, frame, schema, split)


def _part_column(info: DatasetInfo, part: str) -> str:
    if isinstance(info.parts, str) and not (info.next_item and info.next_item.holdout):
        raise ConfigError(f"part = {part!r}: data set {info.name!r} comes in one part; leave part out and split it")
    parts = ["train", "valid", "test"] if isinstance(info.parts, str) else list(info.parts)
    if part not in parts:
        raise ConfigError(f"part = {part!r} is no part of data set {info.name!r}" + did_you_mean(part, parts))
    return info.part_column


def find_dataset(info: DatasetInfo) -> Path | None:
    """Return the folder on this machine that holds the files of a data set, or None."""
    for place in _places(info):
        if all((place / f"{table}.parquet").is_file() for table in info.tables_needed):
            return place
    return None


def _places(info: DatasetInfo) -> list[Path]:
    named = os.environ.get("RECEMBED_DATA")
    roots = [Path(named).expanduser()] if named else []
    return [root / info.folder for root in (*roots, cache_folder())]


def _find_or_fetch(info: DatasetInfo) -> Path:
    if (found := find_dataset(info)) is not None:
        return found
    places = _places(info)
    if info.download is not None:
        return download(info.name, info.download, places[-1])
    files = ", ".join(f"{table}.parquet" for table in info.tables_needed)
    looked = " and ".join(str(place) for place in places)
    raise DataError(
        f"data set {info.name!r} is not in {looked}, and its publisher offers no direct download; "
        f"get it from {info.where} and put {files} into {places[-1]}"
    )


def _spell_out(short: dict[str, Any]) -> Schema:
    """Return the schema that the short form of ``datasets.yaml`` stands for."""
    fold = {"min_count": short["min_count"]} if "min_count" in short else {}
    features = [{"name": short[role], "role": role, **fold} for role in ("user", "item") if role in short]
    features += [{"name": name, **fold} for name in _names(short.get("categorical", []))]
    features += [{"name": name, "kind": "numeric"} for name in _names(short.get("numeric", []))]
    features += [{"name": name, "kind": "bag", "separator": text} for name, text in short.get("bag", {}).items()]
    features += [{"name": name, "kind": "sequence", "shares": of} for name, of in short.get("sequence", {}).items()]
    labels = [{"name": name, "positive_from": least} for name, least in short.get("label", {}).items()]
    return Schema.parse({"features": features, "labels": labels, "timestamp": short.get("timestamp")})


def _names(listed: list[str]) -> Iterator[str]:
    for name in listed:
        if match := re.fullmatch(r"(.*?)(\d+)\.\.\1(\d+)", name):
            yield from (f"{match[1]}{number}" for number in range(int(match[2]), int(match[3]) + 1))
        else:
            yield name


def _read_declarations() -> dict[str, DatasetInfo]:
    text = resources.files("recembed.data").joinpath("datasets.yaml").read_text(encoding="utf-8")
    entries = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {name: _info(name, entry) for name, entry in entries.items()}


def _info(name: str, entry: dict[str, Any]) -> DatasetInfo:
    split = entry.get("split", {"by": "column", "column": entry.get("part_column", "split")})
    return DatasetInfo.model_validate({"folder": name, **entry, "name": name, "split": split})


DATASETS: dict[str, DatasetInfo] = _read_declarations()
"""Every named data set; ``DATASETS["ml100k"].title`` says what it is."""
