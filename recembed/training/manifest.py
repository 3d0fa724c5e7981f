"""``manifest.json``: what a checkpoint holds, with the checksum of every file and of itself."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recembed.errors import CheckpointError
from recembed.training.folder_swap import whole_folder, write_text
from recembed.training.tensor_file import file_digest

__all__ = ["CONFIG", "Manifest", "find_checkpoint", "read_manifest", "tensor_file", "verify_files"]

CONFIG = "config.yaml"
_FORMAT = 1
_NAME = "manifest.json"


def tensor_file(kind: str, rank: int, count: int) -> str:
    """Return the name of the file of process ``rank``.

    >>> tensor_file("weights", 0, 1), tensor_file("training", 1, 4)
    ('weights.safetensors', 'training-00002-of-00004.safetensors')
    """
    part = f"-{rank + 1:05}-of-{count:05}" if count > 1 else ""
    return f"{kind}{part}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
        step: Optimiser steps behind the weights.
        epoch: Epochs behind them, the started one included.
        mapping_version: Of the fitted schema; None where none was saved.
        files: SHA-256 by file, paths relative to the folder.
        progress: How far the run had come; empty in a checkpoint of weights only.
        format: Version of this layout.
    """

    step: int
    epoch: int
    mapping_version: str | None
    files: dict[str, str]
    progress: dict[str, Any] = field(default_factory=dict)
    format: int = _FORMAT

    def tensor_files(self, folder: Path, kind: str) -> list[Path]:
        """Return the paths of the ``weights`` or ``training`` files, those of all processes."""
        return sorted(folder / name for name in self.files if name.startswith(kind))

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``; it is on disk when this returns."""
        record = asdict(self)
        write_text(folder / _NAME, json.dumps(record | {"sha256": _digest(record)}, indent=1))


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def find_checkpoint(folder: Path | str) -> Path:
    """Return the folder of the checkpoint meant by ``folder``: itself, else its ``best``, else its ``last``.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(folder)
    candidates = [whole_folder(place) for place in (folder, folder / "best", folder / "last")]
    for place in candidates:
        if (place / _NAME).is_file():
            return place
    if not folder.exists():
        raise CheckpointError(f"checkpoint {folder} does not exist; give the folder that training wrote")
    raise CheckpointError(f"{folder} is no checkpoint: it holds no {_NAME}; give the folder that training wrote")


def read_manifest(folder: Path | str) -> Manifest:
    """Return the manifest of a checkpoint (see ``find_checkpoint``).

    Raises:
        CheckpointError: there is no checkpoint, its manifest was changed, or another format wrote it.
    """
    path = find_checkpoint(folder) / _NAME
    try:
        record = json.loads(path.read_bytes())
        digest = record.pop("sha256")
        if digest != _digest(record):
            raise ValueError("its checksum differs")
        if record["format"] != _FORMAT:
            raise CheckpointError(
                f"{path} has format {record['format']}, this version of recembed reads format {_FORMAT}; "
                "read it with the version that wrote it"
            )
        return Manifest(**record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} was changed after it was saved ({error}); restore it or train again") from error


def verify_files(folder: Path, manifest: Manifest, rank: int = 0, count: int = 1) -> None:
    """Refuse a checkpoint of which a file is missing or was changed; of ``count`` processes each reads some files.

    Raises:
        CheckpointError: names the file.
    """
    for name, digest in list(manifest.files.items())[rank::count]:
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; restore it, or use another checkpoint")
        if file_digest(path) != digest:
            raise CheckpointError(f"{path} was changed after it was saved; restore it, or use another checkpoint")
