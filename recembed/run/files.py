"""Files of a run, written beside and renamed."""

import json
from pathlib import Path
from typing import Any

from recembed.errors import ConfigError

__all__ = ["prepare_folder", "write_json", "write_text"]


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
        raise ConfigError(
            f"cannot write {path} ({error.strerror or error}); free some space or choose another folder"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; see ``write_text``."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


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
