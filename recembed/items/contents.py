"""Columns of a catalogue as items for an encoder: what is there, its digest, and how it is read when it is needed.

Axes: ``N`` items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recembed.errors import DataError
from recembed.items.cache import content_digest
from recembed.items.catalogue import Catalogue
from recembed.items.faults import Faults
from recembed.items.settings import ImageConfig, TextConfig

__all__ = ["Contents", "images", "texts"]


@dataclass(frozen=True, eq=False)
class Contents:
    """Items of one sort.

    Attributes:
        source: ``text`` or ``image``.
        ids: Raw ids, ``N`` of them.
        present: bool ``[N]``, items that have content.
        digests: uint64 ``[N, 2]``, of the content; 0 where there is none.
        read: The item at a place, for an encoder.
        sizes: What an encoder may order items by: the texts themselves, or nothing.
    """

    source: str
    ids: pl.Series
    present: np.ndarray
    digests: np.ndarray
    read: Callable[[int], Any]
    sizes: Sequence[Any]


def texts(catalogue: Catalogue, config: TextConfig, faults: Faults) -> Contents:
    """Return the texts of a catalogue; binary cells are read as UTF-8.

    >>> from recembed.items.catalogue import catalogue_of
    >>> catalogue = catalogue_of(pl.DataFrame({"item": [1, 2], "title": ["Up", " "]}), "item", Faults())
    >>> found = texts(catalogue, TextConfig(columns=("title",)), faults := Faults())
    >>> found.present.tolist(), found.read(0), dict(faults.counts)
    ([True, False], 'Up', {'text: empty text': 1})
    """
    columns = [_decoded(catalogue.frame[name], catalogue.ids, faults) for name in config.columns]
    cells = [[cell.strip() for cell in row if cell and cell.strip()] for row in zip(*columns, strict=True)]
    joined = [". ".join(row) for row in cells]
    present = np.array([bool(text) for text in joined], bool)
    without = [all(cell is None for cell in row) for row in zip(*columns, strict=True)]
    null = np.array(without, bool)
    faults.lacking("text", "no text", catalogue.ids.filter(pl.Series(null)).to_list())
    faults.lacking("text", "empty text", catalogue.ids.filter(pl.Series(~present & ~null)).to_list())
    marred = [i for i, text in enumerate(joined) if "\ufffd" in text]
    faults.lacking(
        "text", "letters lost to a wrong encoding (encoded as they are)", catalogue.ids.gather(marred).to_list()
    )
    digests = _digests([text.encode() if there else None for text, there in zip(joined, present, strict=True)])
    return Contents("text", catalogue.ids, present, digests, joined.__getitem__, joined)


def _decoded(column: pl.Series, ids: pl.Series, faults: Faults) -> list[str | None]:
    if column.dtype != pl.Binary:
        return column.cast(pl.String).to_list()
    found: list[str | None] = []
    broken = []
    for place, cell in enumerate(column.to_list()):
        try:
            found.append(None if cell is None else cell.decode("utf-8"))
        except UnicodeDecodeError:
            found.append(None)
            broken.append(place)
    faults.broken("text", "not UTF-8", ids.gather(broken).to_list())
    return found


def images(catalogue: Catalogue, config: ImageConfig, content: str | tuple[str, ...], faults: Faults) -> Contents:
    """Return the images of a catalogue: bytes of image files, or paths of them.

    Raises:
        DataError: the column is neither text nor binary.
    """
    column = catalogue.frame[config.column]
    if column.dtype not in (pl.Binary, pl.String):
        raise DataError(f"image: column {config.column!r} has type {column.dtype}: expected paths or bytes of images")
    folder = config.folder or _folder_of(content)
    cells = column.to_list()

    def read(place: int) -> bytes:
        cell = cells[place]
        return cell if isinstance(cell, bytes) else (folder / cell).read_bytes()

    found: list[bytes | None] = []
    gone, null = [], []
    for place, cell in enumerate(cells):
        data: bytes | None = None
        if not cell:
            null.append(place)
        else:
            try:
                data = read(place)
            except OSError:
                gone.append(place)
        found.append(content_digest(data) if data is not None else None)
    faults.lacking("image", "no image", catalogue.ids.gather(null).to_list())
    faults.broken("image", "the file is not there", catalogue.ids.gather(gone).to_list())
    present = np.array([digest is not None for digest in found], bool)
    return Contents("image", catalogue.ids, present, _as_numbers(found), read, cells)


def _folder_of(content: str | tuple[str, ...]) -> Path:
    path = Path(content if isinstance(content, str) else content[0]).expanduser()
    return path if path.is_dir() else path.parent


def _digests(contents: Sequence[bytes | None]) -> np.ndarray:
    return _as_numbers([None if content is None else content_digest(content) for content in contents])


def _as_numbers(digests: Sequence[bytes | None]) -> np.ndarray:
    return np.frombuffer(b"".join(digest or bytes(16) for digest in digests), np.uint64).reshape(-1, 2)
