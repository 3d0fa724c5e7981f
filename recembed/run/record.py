"""What a run folder remembers from its start, so that ``--resume`` goes on with the same data, settings and tracking."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recembed.config import RunConfig
from recembed.data import EncodedData
from recembed.errors import ConfigError, DataError
from recembed.run.files import write_json

__all__ = ["RunRecord", "check_resumed", "clear_outputs", "data_digest"]

_FILE = "run.json"
_FREE = ("name", "tracking", "evaluation", "data.cache")
_FREE_TRAINING = ("epochs", "early_stopping", "evaluate_every", "checkpoint", "threads", "device")


@dataclass(frozen=True)
class RunRecord:
    """The start of a run.

    Attributes:
        data: Digest of the encoded rows of all parts.
        run_id: The run's id in tracking; None where there is no tracking.
    """

    data: str
    run_id: str | None

    def write(self, folder: Path) -> None:
        """Write ``run.json``."""
        write_json(folder / _FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "RunRecord | None":
        """Return the record of a run that was begun in ``folder``, or None."""
        try:
            return cls(**json.loads((folder / _FILE).read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{folder / _FILE} is damaged ({error}); start the run anew with --overwrite") from None


def data_digest(parts: Mapping[str, EncodedData]) -> str:
    """Return the SHA-256 of all encoded rows and of the mapping they were encoded with, in hex."""
    digest = hashlib.sha256()
    for name, part in parts.items():
        digest.update(f"{name}\x1f{part.fitted.version}\x1f{len(part)}".encode())
        for array in part.arrays().values():
            for start in range(0, len(array), 1 << 20):  # mapped arrays need not fit in memory
                digest.update(np.ascontiguousarray(array[start : start + (1 << 20)]).data)
                part.release()
    return digest.hexdigest()


def check_resumed(folder: Path, record: RunRecord, config: RunConfig, digest: str) -> None:
    """Refuse to go on with other rows or other settings than the run began with.

    More epochs, early stopping, evaluation and tracking may change.

    Raises:
        DataError: the rows differ. ConfigError: a setting differs; it is named.
    """
    if digest != record.data:
        raise DataError(
            f"--resume {folder}: the rows (or their split) are not those the run began with; restore them, "
            "or start anew with --overwrite"
        )
    before = _flat(yaml.safe_load((folder / "config.yaml").read_text()))
    now = _flat(config.to_dict())
    for key in sorted(before.keys() | now.keys()):
        free = key.startswith(_FREE) or key.startswith(tuple(f"training.{name}" for name in _FREE_TRAINING))
        if not free and before.get(key) != now.get(key):
            raise ConfigError(
                f"--resume {folder}: {key} = {now.get(key)!r}, but the run began with {before.get(key)!r}; "
                "keep it, or start anew with --overwrite"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    return {key: inner for name, part in value.items() for key, inner in _flat(part, f"{prefix}{name}.").items()}


def clear_outputs(folder: Path) -> None:
    """Delete what an earlier run left in ``folder``, so that old and new files never lie side by side."""
    for name in ("checkpoint", "slices", "stages"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for pattern in ("*.parquet", "metrics.json", "config.yaml", "sharding.yaml", _FILE):
        for path in folder.glob(pattern):
            path.unlink()
