"""A crash at any moment leaves whole folders only."""

import shutil
from pathlib import Path

import pytest

from recembed.training.folder_swap import begin_folder, end_folder, kept_folders

FILES = ("a", "b")


def put(folder: Path, text: str, keep: int) -> None:
    beside = begin_folder(folder)
    for name in FILES:
        (beside / name).write_text(text)
    end_folder(folder, keep=keep)


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("deletion", [0, 1, 2])
def test_a_crash_while_an_old_folder_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, deletion: int
) -> None:
    folder = tmp_path / "last"
    for number in range(4):
        put(folder, str(number), keep)
    deletions = 0

    def half_way(place: Path, ignore_errors: bool = False) -> None:
        nonlocal deletions
        if not Path(place).exists():
            return
        if deletions == deletion:
            (Path(place) / "a").unlink(missing_ok=True)
            raise KeyboardInterrupt  # as a kill would
        deletions += 1
        real(place, ignore_errors=ignore_errors)

    real = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", half_way)
    try:
        put(folder, "4", keep)
    except KeyboardInterrupt:
        pass
    else:
        assert deletions <= deletion, "nothing was left to delete"
    monkeypatch.undo()
    kept = kept_folders(folder)
    assert kept
    for place in kept:
        assert sorted(path.name for path in place.iterdir()) == sorted(FILES)
    put(folder, "5", keep)
    assert (kept_folders(folder)[0] / "a").read_text() == "5"
    assert len(kept_folders(folder)) <= keep
