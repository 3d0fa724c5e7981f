from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from recembed.rows import Piece
from recembed.training import tensor_file
from recembed.training.saved_tensors import SavedTensors
from recembed.training.tensor_file import file_digest, write_tensors


def samples() -> dict[str, Tensor]:
    stack = torch.arange(60.0).view(10, 6)
    return {
        "first": stack[:4, :5],  # two views of one memory, not contiguous
        "second": stack[2:, :5],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "half": torch.tensor([1.5, -2.0, 0.25], dtype=torch.bfloat16),
        "long": torch.tensor([[2**40, -1]]),
        "flags": torch.tensor([True, False]),
    }


@pytest.mark.parametrize("piece_bytes", [1, 50, 1 << 20])
def test_the_library_reads_what_was_written_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(tensor_file, "_PIECE_BYTES", piece_bytes)
    tensors, path = samples(), tmp_path / "x.safetensors"
    digest = write_tensors(path, {name: Piece.of(values) for name, values in tensors.items()})
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, values in tensors.items():
        assert read[name].dtype == values.dtype
        assert torch.equal(read[name], values)
    assert digest == file_digest(path)
    saved = SavedTensors([path])
    assert saved.shapes == {name: tuple(values.shape) for name, values in tensors.items()}
    live = {name: torch.zeros_like(values) for name, values in tensors.items()}
    saved.copy_into({name: Piece.of(values) for name, values in live.items()})
    assert all(torch.equal(live[name], values) for name, values in tensors.items())


def test_one_name_is_read_alone(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {name: Piece.of(values) for name, values in samples().items()})
    assert SavedTensors([tmp_path / "x"]).read("scalar") == torch.tensor(3.5)


def test_a_prefix_leads_to_live_views(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"rows/item": Piece.of(torch.ones(2, 3))})
    stack = torch.zeros(4, 5)
    SavedTensors([tmp_path / "x"]).copy_into({"item": Piece.of(stack[1:3, :3])}, prefix="rows/")
    assert stack.sum() == 6
    assert stack[1:3, :3].sum() == 6


def saved_in_parts(folder: Path) -> tuple[Tensor, Tensor, SavedTensors]:
    """Save a table in two blocks of rows, and in the second file also a table in its first columns."""
    rows, columns = torch.arange(40.0).view(10, 4), torch.arange(30.0).view(5, 6)
    parts = {"rows": Piece(rows[:7], (0, 0), (10, 4)), "columns": Piece(columns[:, 4:], (0, 4), (5, 6))}
    write_tensors(folder / "1", parts)
    parts = {"rows": Piece(rows[7:], (7, 0), (10, 4)), "columns": Piece(columns[:, :4], (0, 0), (5, 6))}
    write_tensors(folder / "2", parts)
    return rows, columns, SavedTensors([folder / "1", folder / "2"])


@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
def test_parts_are_read_into_other_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    monkeypatch.setattr(tensor_file, "_PIECE_BYTES", piece_bytes)
    rows, columns, saved = saved_in_parts(tmp_path)
    assert saved.shapes == {"rows": (10, 4), "columns": (5, 6)}
    live = {"rows": torch.zeros(4, 3), "columns": torch.zeros(2, 6)}
    saved.copy_into({
        "rows": Piece(live["rows"], (5, 1), (10, 4)), "columns": Piece(live["columns"], (3, 0), (5, 6))
    })  # fmt: skip
    assert torch.equal(live["rows"], rows[5:9, 1:4])
    assert torch.equal(live["columns"], columns[3:5])
    places = torch.tensor([9, 0, 7, 6])
    assert torch.equal(saved.rows("rows", places), rows[places])
    assert torch.equal(saved.rows("columns", places % 5), columns[places % 5])


@pytest.mark.filterwarnings("ignore")  # torch warns of loading without processes
def test_the_checkpoints_of_torch_read_parts_too(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    rows, columns, _ = saved_in_parts(tmp_path)
    for name in ("1", "2"):
        (tmp_path / name).rename(tmp_path / f"{name}.safetensors")
    live = {"rows": torch.zeros(10, 4), "columns": torch.zeros(5, 6)}
    dcp.load(live, storage_reader=dcp.HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert torch.equal(live["rows"], rows)
    assert torch.equal(live["columns"], columns)
