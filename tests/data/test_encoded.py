"""Encoded folders: another mapping, and missing or damaged files, are refused by name."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recembed.data.encode import encode, encode_to
from recembed.data.encoded import EncodedData, EncodedJagged
from recembed.data.fit import fit
from recembed.errors import CheckpointError, DataError
from tests.data.rows import SCHEMA, frame


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encode_to(frame(), fit(frame(), SCHEMA), tmp_path / "train")
    return tmp_path / "train"


def test_a_jagged_gather_by_hand() -> None:
    jagged = EncodedJagged(np.array([5, 6, 7, 8], np.int32), np.array([0, 2, 2, 4]), np.array([1, 2, 3, 4], np.float32))
    batch = jagged.batch(np.array([2, 1, 0, 2]))
    assert batch.values.tolist() == [7, 8, 5, 6, 7, 8]
    assert batch.offsets.tolist() == [0, 2, 2, 4, 6]
    assert batch.weights is not None
    assert batch.weights.tolist() == [3, 4, 1, 2, 3, 4]


def test_another_mapping_is_refused_with_both_versions(folder: Path) -> None:
    other = fit(frame().with_columns(user=pl.col("user") + 1), SCHEMA)
    mine = EncodedData.open(folder).fitted.version[:12]
    with pytest.raises(CheckpointError, match=rf"{mine}.*{other.version[:12]}.*train again"):
        EncodedData.open(folder, other)


def test_missing_and_cut_off_files_are_named(folder: Path) -> None:
    ids = folder / "ids.npy"
    content = ids.read_bytes()
    ids.write_bytes(content[:-4])
    with pytest.raises(DataError, match=r"ids\.npy is missing or cut off .*encode the data again"):
        EncodedData.open(folder)
    ids.unlink()
    with pytest.raises(DataError, match=r"ids\.npy is missing or cut off"):
        EncodedData.open(folder)
    np.save(ids, np.zeros((2, 3), np.int32))
    with pytest.raises(DataError, match=r"ids\.npy has shape \[2, 3\], its manifest says \[4, 3\]"):
        EncodedData.open(folder)


def test_a_folder_without_or_with_a_damaged_manifest_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        EncodedData.open(folder)
    with pytest.raises(
        DataError, match=r"manifest\.json does not exist; encoded data is a folder written by encode_to"
    ):
        EncodedData.open(tmp_path / "nowhere")


def test_questions_without_an_answer_are_refused() -> None:
    data = encode(frame(), fit(frame(), SCHEMA))
    with pytest.raises(DataError, match=r"feature 'genres' holds several ids a row"):
        data.train_counts("genres")
    with pytest.raises(DataError, match=r"feature 'age' \(kind 'numeric'\) holds no ids"):
        data.column("age")
