from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from recembed.training import tensor_file
from recembed.training.tensor_file import copy_tensors, file_digest, read_tensors, tensor_shapes, write_tensors


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
    digest = write_tensors(path, tensors)
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, values in tensors.items():
        assert read[name].dtype == values.dtype
        assert torch.equal(read[name], values)
    assert digest == file_digest(path)
    assert tensor_shapes(path) == {name: tuple(values.shape) for name, values in tensors.items()}
    live = {name: torch.zeros_like(values) for name, values in tensors.items()}
    copy_tensors(path, live)
    assert all(torch.equal(live[name], values) for name, values in tensors.items())


def test_some_names_are_read_alone(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", samples())
    assert read_tensors(tmp_path / "x", ["scalar"]) == {"scalar": torch.tensor(3.5)}


def test_a_prefix_leads_to_live_views(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"rows/item": torch.ones(2, 3)})
    stack = torch.zeros(4, 5)
    copy_tensors(tmp_path / "x", {"item": stack[1:3, :3]}, prefix="rows/")
    assert stack.sum() == 6
    assert stack[1:3, :3].sum() == 6
