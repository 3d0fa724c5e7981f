"""The data of the speed table: the user's files where they are, else files drawn once in the same form."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from criteo_shaped import IDS, NUMBERS, ROWS, Law

__all__ = ["draw_files", "place_of"]


def place_of(vocab: str, needed: tuple[str, ...], data: Path, drawn: Path, rows: int, *, always: bool) -> Path:
    """Return the folder whose ``v{vocab}`` holds the ``needed`` files; ``always`` draws even where ``data`` has them."""
    if not always and all((data / f"v{vocab}" / name).is_file() for name in needed):
        return data
    if _rows_in(drawn / f"v{vocab}") < rows:
        draw_files(drawn / f"v{vocab}", ROWS[vocab], rows)
    return drawn


def _rows_in(folder: Path) -> int:
    file = folder / "meta.json"
    return int(json.loads(file.read_text())["rows_train"]) if file.is_file() else 0


def draw_files(folder: Path, ids: int, rows: int, seed: int = 7) -> None:
    """Write ``train.parquet``, ``test.parquet``, ``train.csv`` (ids as hexadecimal strings) and ``meta.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)  # written last: without it the files count as missing
    law = Law(ids, seed)
    frame = law.rows(rows + rows // 4, np.random.default_rng([seed, 0]))
    frame[:rows].write_parquet(folder / "train.parquet")
    frame[rows:].write_parquet(folder / "test.parquet")
    columns = [pl.Series(name, _words(frame[name][:rows].to_numpy(), place)) for place, name in enumerate(IDS)]
    counts = frame[:rows].select("label", pl.col(NUMBERS).fill_nan(None).exp().sub(1).round().cast(pl.Int32))
    counts.with_columns(columns).write_csv(folder / "train.csv")
    (folder / "meta.json").write_text(json.dumps({"vocab": law.sizes, "rows_train": rows, "rows_test": rows // 4}))


def _words(ids: np.ndarray, place: int) -> np.ndarray:
    """Return eight hexadecimal digits for each id, different ones for each field."""
    unique, inverse = np.unique(ids, return_inverse=True)
    words = [f"{(int(one) * 0x9E3779B1 + place) & 0xFFFFFFFF:08x}" for one in unique]
    return np.array(words)[inverse]
