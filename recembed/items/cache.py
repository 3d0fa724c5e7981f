"""``VectorCache``: vectors by the content they were made of, so that only what changed is encoded again.

One folder per encoder (model, revision, preprocessing), named by a digest of that record, which lies in it as
``encoder.json``. In it, ``<n>.vectors.npy`` and ``<n>.digests.npy`` are what one run added; ``views/`` holds matrices in
the order of a catalogue, mapped into memory by every process that reads them.
Axes: ``N`` items, ``D`` width.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recembed.errors import DataError

__all__ = ["VectorCache", "content_digest"]

_VIEWS_KEPT = 4


def content_digest(content: bytes) -> bytes:
    """Return 16 bytes that stand for ``content``."""
    return hashlib.blake2b(content, digest_size=16).digest()


class VectorCache:
    """The vectors of one encoder.

    Args:
        root: Folder of all encoders.
        encoder: Everything a vector depends on beside the content: model, revision, preprocessing.

    Attributes:
        name: Digest of ``encoder``.
    """

    def __init__(self, root: Path, encoder: Mapping[str, Any]) -> None:
        self.encoder = encoder
        record = json.dumps(encoder, indent=1, sort_keys=True)
        self.name = hashlib.blake2b(record.encode(), digest_size=8).hexdigest()
        self.folder = root / self.name
        try:
            (self.folder / "views").mkdir(parents=True, exist_ok=True)
            if not (self.folder / "encoder.json").is_file():
                _write(self.folder / "encoder.json", record.encode())
        except OSError as error:
            raise DataError(
                f"cache {self.folder} cannot be written: {error.strerror or error}; name another"
            ) from error

    def find(self, digests: np.ndarray) -> np.ndarray:
        """Return bool ``[N]``: of which content there is a vector.

        Shapes:
            digests: uint64 ``[N, 2]``.
        """
        return self._places(digests)[1] >= 0

    def add(self, digests: np.ndarray, vectors: np.ndarray) -> None:
        """Keep vectors; a process that is stopped in the middle leaves nothing half done.

        Shapes:
            digests: uint64 ``[n, 2]``; vectors: float32 ``[n, D]``.
        """
        name = uuid.uuid4().hex[:12]
        _save(self.folder / f"{name}.vectors.npy", np.asarray(vectors, np.float32))
        _save(self.folder / f"{name}.digests.npy", digests)  # last: a part counts when its digests are there

    def view(self, digests: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors in this order, mapped from a file, and which of them are there.

        Shapes:
            digests: uint64 ``[N, 2]``; wanted: bool ``[N]``, items that have content.
            Returns float32 ``[N, D]``, zero where absent, and bool ``[N]``.
        """
        path = self.path_of_view(digests, wanted)
        if path.is_file():
            return _mapped(path), wanted
        parts, places = self._places(digests)
        found = wanted & (places >= 0)
        segments = self._segments()
        width = next((np.load(v, mmap_mode="r").shape[1] for v, _ in segments), 0)
        beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        matrix = np.lib.format.open_memmap(beside, "w+", np.float32, (len(digests), width))
        for number, (vectors, _) in enumerate(segments):
            here = np.flatnonzero(found & (parts == number))
            if here.size:
                matrix[here] = np.load(vectors, mmap_mode="r")[places[here]]
        matrix.flush()
        del matrix
        if not (found == wanted).all():  # what is missing is tried again by the next run, so this view is no final one
            path = path.with_name(f"partial-{path.name}")
        beside.replace(path)
        self._forget_old_views(path)
        return _mapped(path), found

    def path_of_view(self, digests: np.ndarray, wanted: np.ndarray) -> Path:
        """Return where the view of this content lies, once there is a vector of every wanted item."""
        whole = hashlib.blake2b(np.where(wanted[:, None], digests, 0).tobytes() + wanted.tobytes(), digest_size=12)
        return self.folder / "views" / f"{whole.hexdigest()}.npy"

    def _segments(self) -> list[tuple[Path, Path]]:
        found = sorted(self.folder.glob("*.digests.npy"))
        return [(path.with_name(path.name.replace(".digests.", ".vectors.")), path) for path in found]

    def _places(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the part and the row of each item's vector, -1 where there is none."""
        known = []
        for number, (vectors, path) in enumerate(self._segments()):
            rows = np.load(path)
            if not vectors.is_file() or len(np.load(vectors, mmap_mode="r")) != len(rows):
                raise DataError(
                    f"cache {self.folder}: {vectors.name} is not whole; remove {path.name}, it is made anew"
                )
            place = np.arange(len(rows))
            known.append(
                pl.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "part": np.full(len(rows), number), "row": place})
            )
        if not known:
            return np.full(len(digests), -1), np.full(len(digests), -1)
        index = pl.concat(known).unique(["a", "b"], keep="first", maintain_order=True)
        asked = pl.DataFrame({"a": digests[:, 0], "b": digests[:, 1]})
        joined = asked.join(index, on=["a", "b"], how="left", maintain_order="left")
        return joined["part"].fill_null(-1).to_numpy(), joined["row"].fill_null(-1).to_numpy()

    def _forget_old_views(self, newest: Path) -> None:
        views = sorted((self.folder / "views").glob("*.npy"), key=lambda path: path.stat().st_mtime)
        for path in views[:-_VIEWS_KEPT]:
            if path != newest:
                with contextlib.suppress(OSError):  # a process that has it mapped keeps it
                    path.unlink()


def _mapped(path: Path) -> np.ndarray:
    matrix: np.ndarray = np.load(path, mmap_mode="c")
    return matrix


def _save(path: Path, array: np.ndarray) -> None:
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        np.save(file, np.ascontiguousarray(array))
    beside.replace(path)


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(data)
    beside.replace(path)
