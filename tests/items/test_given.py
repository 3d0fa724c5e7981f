"""Given vectors: by id and never by row, and every way in which a file can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from recembed.errors import DataError
from recembed.items.faults import Faults
from recembed.items.given import read_vectors
from recembed.items.settings import VectorsConfig

IDS, VECTORS = [30, 10, 20], np.array([[3, 3.5], [1, 1.5], [2, 2.5]], np.float32)
WANTED = {10: [1.0, 1.5], 20: [2.0, 2.5], 30: [3.0, 3.5]}


def read(path: Path, faults: Faults | None = None, **options: Any) -> dict[Any, list[float]]:
    found = read_vectors("clip", VectorsConfig(path=path, **options), faults or Faults())
    assert (found.keys[1:] > found.keys[:-1]).all()
    return {i: found.vectors[row].tolist() for i, row in zip(found.ids.to_list(), found.rows, strict=True)}


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.array(IDS), vectors=VECTORS)
    save_file({"ids": np.array(IDS), "vectors": VECTORS}, tmp_path / "a.safetensors")
    np.save(tmp_path / "a.npy", VECTORS)
    np.save(tmp_path / "ids.npy", np.array(IDS))
    pl.DataFrame({"id": IDS}).write_parquet(tmp_path / "ids.parquet")
    pl.DataFrame({"id": IDS, "v": VECTORS}).write_parquet(tmp_path / "a.parquet")
    record = np.zeros(3, [("id", "i8"), ("v", "f4", (2,))])
    record["id"], record["v"] = IDS, VECTORS
    np.save(tmp_path / "record.npy", record)
    for name in ("a.npz", "a.safetensors", "a.parquet", "record.npy"):
        assert read(tmp_path / name) == WANTED
    for ids in ("ids.npy", "ids.parquet"):
        assert read(tmp_path / "a.npy", ids=tmp_path / ids) == WANTED


def test_text_ids(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.array(["b", "a"]), vectors=VECTORS[:2])
    assert read(tmp_path / "a.npz") == {"b": [3.0, 3.5], "a": [1.0, 1.5]}


def test_broken_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    ids = [1, 2, 3, 4, 4, 5, 5, None]
    cells = [[1.0, 2.0], [1.0], None, [4.0, 4.0], [4.0, 4.0], [5.0, 5.0], [6.0, 6.0], [9.0, 9.0]]
    pl.DataFrame({"id": ids, "v": cells}).write_parquet(tmp_path / "a.parquet")
    faults = Faults()
    assert read(tmp_path / "a.parquet", faults) == {1: [1.0, 2.0], 4: [4.0, 4.0], 5: [5.0, 5.0]}
    assert dict(faults.counts) == {
        "clip: no vector": 1,
        "clip: vectors of another length than 2": 1,
        "clip: content without an id": 1,
        "clip: ids with different vectors (the first is kept)": 1,
    }
    with pytest.raises(DataError, match="clip: vectors of another length than 2: 1 items, the first is 2"):
        read(tmp_path / "a.parquet", Faults("stop"))


def test_nan_and_infinity_are_never_vectors(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.arange(3), vectors=np.array([[1, np.nan], [np.inf, 0], [1, 1]]))
    assert read(tmp_path / "a.npz", faults := Faults()) == {2: [1.0, 1.0]}
    assert faults.lines() == ["clip: vectors with NaN or infinity: 2 items, the first is 0"]


def test_files_of_no_use(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vectors\.clip: .*gone\.npy does not exist"):
        read(tmp_path / "gone.npy")
    np.save(tmp_path / "a.npy", VECTORS)
    with pytest.raises(DataError, match="rows are never matched by their order; name the file of the ids"):
        read(tmp_path / "a.npy")
    np.save(tmp_path / "ids.npy", np.arange(2))
    with pytest.raises(DataError, match="2 ids and 3 vectors; give one id per vector"):
        read(tmp_path / "a.npy", ids=tmp_path / "ids.npy")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04cut")
    with pytest.raises(DataError, match=r"b\.npz is no whole file of plain arrays"):
        read(tmp_path / "b.npz")
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="no whole safetensors file"):
        read(tmp_path / "b.safetensors")
    pl.DataFrame({"id": [1], "v": [[1.0]], "w": [[2.0]]}).write_parquet(tmp_path / "two.parquet")
    with pytest.raises(DataError, match=r"2 columns of vectors \(v, w\); name one as vectors\.clip\.column"):
        read(tmp_path / "two.parquet")
    assert read(tmp_path / "two.parquet", column="w") == {1: [2.0]}
    with pytest.raises(DataError, match="has no ids called 'item'"):
        read(tmp_path / "two.parquet", id="item", column="w")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"expected \.parquet, \.safetensors, \.npz or \.npy, found '\.txt'"):
        read(tmp_path / "a.txt")
    np.savez(tmp_path / "nan.npz", ids=np.arange(1), vectors=np.array([[np.nan]]))
    with pytest.raises(DataError, match="holds no vector that can be used"):
        read(tmp_path / "nan.npz")
    np.savez(tmp_path / "int.npz", ids=np.arange(1), vectors=np.array([[1]]))
    with pytest.raises(DataError, match=r"holds int64 \(1, 1\): expected floats"):
        read(tmp_path / "int.npz")
