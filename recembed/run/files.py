"""Files of a run, written beside and renamed."""

import json
import math
from pathlib import Path
from typing import Any

import polars as pl

from recembed.errors import ConfigError

__all__ = ["prepare_folder", "write_json", "write_table", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` holds the old content or all of the new one, never a part.

    Raises:
        ConfigError: the place cannot be written to.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; see ``write_text``."""
    write_text(path, json.dumps(_plain(value), indent=2) + "\n")


def prepare_folder(folder: Path, *, may_exist: bool) -> None:
    """Make ``folder`` and prove that it can be written to.

    Raises:
        ConfigError: it holds a run already and ``may_exist`` is False, is a file, or is read-only.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output {folder} is a file; choose a folder")
    if not may_exist and (folder / "config.yaml").exists():
        raise ConfigError(
            f"output {folder} holds a run already; choose another --out, go on with --resume, or --overwrite"
        )
    probe = folder / ".writable"
    write_text(probe, "")
    probe.unlink()


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: NaN and infinities become null."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def write_table(path: Path, frame: pl.DataFrame) -> None:
    """Write ``frame`` as Parquet, or as CSV where ``path`` ends so, beside and renamed.

    Raises:
        ConfigError: the place cannot be written to, or CSV cannot hold a column.
    """
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    if path.suffix == ".csv" and nested:
        raise ConfigError(f"{path}: CSV cannot hold the lists of column {nested[0]!r}; name a .parquet file")
    beside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            frame.write_csv(beside)
        else:
            frame.write_parquet(beside)
        beside.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path} ({error.strerror or error}); free some space or choose another folder")


def flat_numbers(value: Any, prefix: str = "") -> dict[str, float]:
    """Return the finite numbers of nested mappings, names joined by dots.

    >>> flat_numbers({"test": {"auc": 0.7, "n": 3}, "stopped": "finished"})
    {'test.auc': 0.7, 'test.n': 3.0}
    """
    found: dict[str, float] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, dict):
            found |= flat_numbers(inner, f"{name}.")
        elif isinstance(inner, (int, float)) and not isinstance(inner, bool) and math.isfinite(inner):
            found[name] = float(inner)
    return found
