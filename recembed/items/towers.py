"""``Tower``: an encoder of content that is handed in, and how one is found on this machine.

Axes: ``n`` items of a batch, ``D`` width.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recembed.errors import DataError

__all__ = ["Tower", "TowerMaker", "fingerprint", "pick_device"]

_CHUNK = 1 << 22


class Tower(ABC):
    """A loaded encoder: items in, one vector each out."""

    @abstractmethod
    def prepare(self, item: Any) -> Any:
        """Turn one item (text, or the bytes of an image file) into what ``encode`` takes; another thread calls it.

        Raises:
            DataError: the item is broken; the message says how.
        """

    @abstractmethod
    def encode(self, prepared: Sequence[Any]) -> np.ndarray:
        """Return float32 ``[n, D]``."""


class TowerMaker(ABC):
    """What is known of an encoder before it is loaded, which is only done where something must be encoded."""

    @property
    @abstractmethod
    def record(self) -> Mapping[str, Any]:
        """Model, revision and preprocessing: all that a vector depends on beside its item."""

    @abstractmethod
    def load(self) -> Tower:
        """Load the encoder.

        Raises:
            ConfigError: the model is not there; the message holds the line that gets it.
            MissingPackageError: a package is not there; likewise.
        """

    def order(self, items: Sequence[Any]) -> np.ndarray:
        """Return the order in which items are encoded fastest, int64 ``[n]``."""
        return np.arange(len(items))


def fingerprint(path: Path) -> str:
    """Return a digest of a model's files: the revision of a model that lies in a folder or file.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=12)
    try:
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        for file in files:
            digest.update(file.relative_to(path).as_posix().encode())
            with file.open("rb") as opened:
                while chunk := opened.read(_CHUNK):
                    digest.update(chunk)
    except OSError as error:
        raise DataError(f"model {path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def pick_device(device: str) -> str:
    """Return ``device``, or the one that ``auto`` stands for here: a GPU where there is one."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
