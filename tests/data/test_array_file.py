"""A growing ``.npy`` file is an ordinary one once closed."""

from pathlib import Path

import numpy as np

from recembed.data.array_file import ArrayFile, GrowingArray


def test_appended_parts_read_back_as_one_array(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "x.npy", np.empty((0, 2), np.int32))
    file.append(np.array([[1, 2]], np.int32))
    file.append(np.array([[3, 4], [5, 6]], np.int32)[::-1])
    assert file.close() == (3, 2)
    array = np.load(tmp_path / "x.npy")
    assert array.dtype == np.int32
    assert array.tolist() == [[1, 2], [5, 6], [3, 4]]


def test_a_file_without_rows_keeps_type_and_width(tmp_path: Path) -> None:
    ArrayFile(tmp_path / "x.npy", np.empty((0, 3), np.float32)).close()
    array = np.load(tmp_path / "x.npy")
    assert (array.shape, array.dtype) == ((0, 3), np.float32)


def test_a_growing_array_holds_its_parts_in_order() -> None:
    array = GrowingArray(np.empty((0, 2), np.int32))
    parts = [np.full((rows, 2), rows, np.int32) for rows in (1, 5, 0, 2, 70)]
    for part in parts:
        array.append(part)
    assert array.close().tolist() == np.concatenate(parts).tolist()
