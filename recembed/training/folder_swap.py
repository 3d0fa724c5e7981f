"""Replace a whole folder so that a crash at any moment leaves the old one or the new one, complete.

The new folder is written as ``NAME.tmp``; then ``NAME`` becomes ``NAME.old``, ``NAME.tmp`` becomes ``NAME``, and
``NAME.old`` goes, unless some are kept: then it stays, and becomes ``NAME.old2`` the next time. Between the two renames
``NAME.old`` is the complete one, and ``whole_folder`` finds it.
"""

import os
import shutil
from pathlib import Path

__all__ = ["begin_folder", "drop_folder", "end_folder", "kept_folders", "link_or_copy", "whole_folder", "write_text"]


def _old(folder: Path, number: int = 1) -> Path:
    return folder.with_name(f"{folder.name}.old{number if number > 1 else ''}")


def kept_folders(folder: Path) -> list[Path]:
    """Return ``folder`` and those kept before it, newest first, as far as they are there."""
    older = [_old(folder, 1)]
    while older[-1].is_dir():
        older.append(_old(folder, len(older) + 1))
    return [place for place in (folder, *older[:-1]) if place.is_dir()]


def whole_folder(folder: Path) -> Path:
    """Return ``folder``, or ``folder.old`` where a crash came between the renames."""
    return _old(folder) if not folder.exists() and _old(folder).is_dir() else folder


def begin_folder(folder: Path) -> Path:
    """Return a fresh folder beside ``folder``, to be filled and then given to ``end_folder`` or ``drop_folder``.

    Raises:
        OSError: the disk is full, the place cannot be written, or ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(20, "a file is in the way", str(folder))
    drop_folder(folder)
    beside = _beside(folder)
    beside.mkdir(parents=True)
    return beside


def end_folder(folder: Path, *, keep: int = 1) -> None:
    """Put the folder that was begun in the place of ``folder``; ``keep`` of them stay, the new one included."""
    beside = _beside(folder)
    for inner in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
        _sync(inner)
    if folder.exists():
        for number in range(len(kept_folders(folder)), 1, -1):
            _discard(_old(folder, number))
            if number <= keep - 1 and _old(folder, number - 1).exists():
                _old(folder, number - 1).rename(_old(folder, number))
        _discard(_old(folder))
        folder.rename(_old(folder))
    beside.rename(folder)
    _sync(folder.parent)
    if keep == 1:
        _discard(_old(folder))


def _discard(folder: Path) -> None:
    """Delete a folder, which nobody takes for a whole one while it goes."""
    going = folder.with_name(f"{folder.name}.gone")
    shutil.rmtree(going, ignore_errors=True)
    if folder.exists():
        folder.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def drop_folder(folder: Path) -> None:
    """Forget the folder that was begun; what ``folder`` held stays as it was."""
    shutil.rmtree(_beside(folder), ignore_errors=True)


def _beside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".tmp")


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
