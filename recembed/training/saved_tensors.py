"""``SavedTensors``: tensors of several safetensors files, each whole or in parts, read part by part.

Axes: ``U`` places.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from recembed.rows import Piece
from recembed.training.tensor_file import PLACES, piece_rows

__all__ = ["SavedTensors"]


@dataclass(frozen=True, slots=True)
class _Part:
    file: Any
    start: tuple[int, ...]
    shape: tuple[int, ...]


class SavedTensors:
    """The tensors that lie in ``paths``; nothing is read before it is asked for.

    Attributes:
        shapes: Shape of each whole tensor.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._parts: dict[str, list[_Part]] = {}
        for path in paths:
            file: Any = safe_open(path, framework="pt")
            places = json.loads((file.metadata() or {}).get(PLACES, "{}"))
            for name in file.keys():  # noqa: SIM118
                shape = tuple(file.get_slice(name).get_shape())
                start = tuple(places[name]["saved_offsets"]) if name in places else (0,) * len(shape)
                self._parts.setdefault(name, []).append(_Part(file, start, shape))
        self.shapes = {name: self._whole(parts) for name, parts in self._parts.items()}

    @staticmethod
    def _whole(parts: Sequence[_Part]) -> tuple[int, ...]:
        ends = [[a + n for a, n in zip(part.start, part.shape, strict=True)] for part in parts]
        return tuple(max(axis) for axis in zip(*ends, strict=True))

    def read(self, name: str, place: Piece | None = None) -> Tensor:
        """Return a tensor, or what lies where ``place`` does, in memory of its own."""
        first = self._parts[name][0]
        if place is None and first.shape == self.shapes[name]:
            tensor: Tensor = first.file.get_tensor(name)
            return tensor
        shape = self.shapes[name] if place is None else place.values.shape
        tensor = torch.empty(shape, dtype=first.file.get_slice(name)[:0].dtype)
        self.copy_into({name: Piece.of(tensor) if place is None else replace(place, values=tensor)})
        return tensor

    @torch.no_grad()
    def copy_into(self, pieces: Mapping[str, Piece], prefix: str = "") -> None:
        """Copy ``prefix + name`` into each live piece, as far as it lies in it."""
        for name, piece in pieces.items():
            for part in self._parts[prefix + name]:
                if piece.values.ndim == 0:
                    piece.values.copy_(part.file.get_tensor(prefix + name))
                else:
                    _copy(part, prefix + name, piece)

    @torch.no_grad()
    def rows(self, name: str, places: Tensor) -> Tensor:
        """Return rows of a tensor, by int64 places ``[U]``; a block of each part is the most that is held beside them."""
        found = torch.zeros(len(places), *self.shapes[name][1:])
        for part in self._parts[name]:
            columns = slice(part.start[1], part.start[1] + part.shape[1]) if len(part.shape) > 1 else slice(None)
            for first, block in _blocks(part, name):
                here = ((places >= first) & (places < first + len(block))).nonzero().squeeze(1)
                rows = block[places[here] - first].float()
                if found.ndim == 1:
                    found[here] = rows
                else:
                    found[here, columns] = rows
        return found


def _blocks(part: _Part, name: str) -> Iterator[tuple[int, Tensor]]:
    saved = part.file.get_slice(name)
    count = piece_rows(torch.empty(part.shape, device="meta"))
    for start in range(0, part.shape[0], count):
        yield part.start[0] + start, saved[start : min(start + count, part.shape[0])]


def _copy(part: _Part, name: str, piece: Piece) -> None:
    """Copy what ``part`` and ``piece`` have in common, a block of rows at a time."""
    lows = [max(a, b) for a, b in zip(part.start, piece.start, strict=True)]
    sizes = zip(lows, part.start, part.shape, piece.start, piece.values.shape, strict=True)
    highs = [min(a + n, b + m) for _, a, n, b, m in sizes]
    if any(low >= high for low, high in zip(lows, highs, strict=True)):
        return
    saved, count = part.file.get_slice(name), piece_rows(piece.values)
    for first in range(lows[0], highs[0], count):
        window = [slice(first, min(first + count, highs[0])), *map(slice, lows[1:], highs[1:])]
        source, target = (
            tuple(slice(cut.start - start, cut.stop - start) for cut, start in zip(window, starts, strict=True))
            for starts in (part.start, piece.start)
        )
        piece.values[target].copy_(saved[source])
