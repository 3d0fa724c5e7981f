"""Safetensors files, written in pieces, so that big tables never lie in memory twice.

The library's own writer asks for all tensors at once, contiguous and apart from each other in memory; rows of a
store are views of a stack. Reading (``saved_tensors``) is the library's.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from recembed.rows import Piece

__all__ = ["PLACES", "file_digest", "piece_rows", "write_tensors"]

PLACES = "DCP_SHARDING_INFO"
"""Where ``torch.distributed.checkpoint`` looks for the places of parts in a file of safetensors, and so do we."""

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


def write_tensors(path: Path, pieces: Mapping[str, Piece]) -> str:
    """Write tensors or parts of them; return the SHA-256 of the file, which is on disk when this returns.

    Where a part is not the whole, the header says where each part begins, in the words that the
    ``HuggingFaceStorageReader`` of ``torch.distributed.checkpoint`` reads.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        tensors = {name: piece.values for name, piece in pieces.items()}
        order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps every tensor aligned
        parts: Iterator[bytes | memoryview] = chain(
            [_header(order, pieces)], *(_parts(tensors[name]) for name in order)
        )
        for part in parts:
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(order: list[str], pieces: Mapping[str, Piece]) -> bytes:
    entries: dict[str, dict[str, object]] = {}
    start = 0
    if any(tuple(piece.values.shape) != piece.whole for piece in pieces.values()):
        places = {name: {"saved_offsets": list(pieces[name].start)} for name in order}
        entries["__metadata__"] = {"format": "pt", PLACES: json.dumps(places)}
    for name in order:
        tensor = pieces[name].values
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parts(tensor: Tensor) -> Iterator[memoryview]:
    whole = tensor.detach()
    if whole.ndim == 0:
        whole = whole.reshape(1)
    if whole.numel() == 0:
        return
    for part in torch.split(whole, piece_rows(whole)):
        yield part.cpu().contiguous().view(torch.uint8).numpy().reshape(-1).data


def piece_rows(tensor: Tensor) -> int:
    """Return how many rows of ``tensor`` are held in memory a second time, at most."""
    row_bytes = tensor.numel() * tensor.element_size() // tensor.shape[0]
    return max(_PIECE_BYTES // max(row_bytes, 1), 1)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
