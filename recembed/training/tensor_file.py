"""Safetensors files, written and read in pieces, so that big tables never lie in memory twice.

The library's own writer asks for all tensors at once, contiguous and apart from each other in memory; rows of a
store are views of a stack. Reading is the library's.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

__all__ = ["copy_tensors", "file_digest", "read_tensors", "tensor_shapes", "write_tensors"]

_PIECE_BYTES = 1 << 26
_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write ``tensors`` and return the SHA-256 of the file, which is on disk when this returns.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps every tensor aligned
        pieces: Iterator[bytes | memoryview] = chain(
            [_header(order, tensors)], *(_pieces(tensors[name]) for name in order)
        )
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(order: list[str], tensors: Mapping[str, Tensor]) -> bytes:
    entries, start = {}, 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pieces(tensor: Tensor) -> Iterator[memoryview]:
    whole = tensor.detach()
    if whole.ndim == 0:
        whole = whole.reshape(1)
    if whole.numel() == 0:
        return
    for part in torch.split(whole, _piece_rows(whole)):
        yield part.cpu().contiguous().view(torch.uint8).numpy().reshape(-1).data


def _piece_rows(tensor: Tensor) -> int:
    row_bytes = tensor.numel() * tensor.element_size() // tensor.shape[0]
    return max(_PIECE_BYTES // max(row_bytes, 1), 1)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in the file."""
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the named tensors of the file, in memory of their own."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in names}


@torch.no_grad()
def copy_tensors(path: Path, into: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy tensors ``prefix + name`` of the file into live tensors of the same shapes, piece by piece."""
    with safe_open(path, framework="pt") as file:
        for name, live in into.items():
            if live.ndim == 0 or live.numel() == 0:
                live.copy_(file.get_tensor(prefix + name))
                continue
            saved, rows = file.get_slice(prefix + name), _piece_rows(live)
            for start in range(0, live.shape[0], rows):
                live[start : start + rows].copy_(saved[start : start + rows])


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
