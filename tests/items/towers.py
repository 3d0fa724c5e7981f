"""Encoders small enough to be worked out by hand, and files of items."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recembed.errors import DataError
from recembed.items import ContentConfig
from recembed.items.towers import Tower, TowerMaker


class Letters(Tower):
    """A text becomes (its length, how often it holds the letter a)."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fits = 10**6
        self.broken: str | None = None

    def prepare(self, item: Any) -> Any:
        if item == "unreadable":
            raise DataError("unreadable text")
        return item

    def encode(self, prepared: Sequence[Any]) -> np.ndarray:
        if len(prepared) > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.broken in prepared:
            raise ValueError("index out of range in self")
        self.batches.append(len(prepared))
        lengths = [float("nan") if text == "nan" else len(text) for text in prepared]
        return np.array([[n, text.count("a")] for n, text in zip(lengths, prepared, strict=True)], np.float32)


class LettersMaker(TowerMaker):
    def __init__(self, revision: str = "1") -> None:
        self.revision, self.tower, self.loads = revision, Letters(), 0

    @property
    def record(self) -> Mapping[str, Any]:
        return {"kind": "letters", "revision": self.revision}

    def load(self) -> Letters:
        self.loads += 1
        return self.tower


def write_items(folder: Path, titles: Mapping[Any, str | None]) -> ContentConfig:
    """Write a file of items and return the config that reads its titles."""
    path = folder / "items.parquet"
    pl.DataFrame({"item": list(titles), "title": list(titles.values())}).write_parquet(path)
    return ContentConfig(content=str(path), id="item", text="title", cache=folder / "cache", batch_size=2)
