"""Replace a whole folder so that a crash at any moment leaves the old one or the new one, complete.

The new folder is written as ``NAME.tmp``; then ``NAME`` becomes ``NAME.old``, ``NAME.tmp`` becomes ``NAME``, and
``NAME.old`` goes. Between the two renames ``NAME.old`` is the complete one, and ``whole_folder`` finds it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["link_or_copy", "new_folder", "whole_folder", "write_text"]


def _old(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def whole_folder(folder: Path) -> Path:
    """Return ``folder``, or ``folder.old`` where a crash came between the renames."""
    return _old(folder) if not folder.exists() and _old(folder).is_dir() else folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a fresh folder beside ``folder``; on leaving without an error it takes the place of ``folder``.

    On an error it is removed, and what ``folder`` held stays as it was.

    Raises:
        OSError: the disk is full, the place cannot be written, or ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(20, "a file is in the way", str(folder))
    beside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        for inner in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
            _sync(inner)
        _swap(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _swap(beside: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(_old(folder), ignore_errors=True)
        folder.rename(_old(folder))
    beside.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(_old(folder), ignore_errors=True)


def _sync(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file a second name, or copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Write a text file; it is on disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
