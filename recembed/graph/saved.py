"""A graph on disk: plain ``.npy`` arrays that can be mapped into memory, and the raw ids as Parquet."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from recembed.errors import DataError
from recembed.graph.edges import Edges
from recembed.graph.interaction_graph import InteractionGraph

__all__ = ["load_graph", "save_graph"]

_FORMAT = 1


def save_graph(graph: InteractionGraph, folder: Path | str) -> None:
    """Write a graph to a folder, whole or not at all: it is written beside and put in its place."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, ids in (("users", graph.user_ids), ("items", graph.item_ids)):
            pl.DataFrame({"id": ids}).write_parquet(fresh / f"{name}.parquet")
        for place, edges in enumerate([graph.edges, *graph.types.values()]):
            np.save(fresh / f"{place}.pointers.npy", edges.pointers)
            np.save(fresh / f"{place}.neighbours.npy", edges.neighbours)
            if edges.weights is not None:
                np.save(fresh / f"{place}.weights.npy", edges.weights)
        (fresh / "graph.json").write_text(json.dumps({"format": _FORMAT, "types": list(graph.types)}))
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def load_graph(folder: Path | str, *, mapped: bool = False) -> InteractionGraph:
    """Read what ``save_graph`` wrote; ``mapped`` leaves the edges on disk and reads what is touched.

    Raises:
        DataError: there is no whole graph in the folder.
    """
    folder = Path(folder)
    if not (folder / "graph.json").is_file():
        raise DataError(f"{folder} holds no saved graph (graph.json is missing): save one there with `graph.save`")
    header = json.loads((folder / "graph.json").read_text())
    if header["format"] != _FORMAT:
        raise DataError(f"{folder}: graph of format {header['format']}, this version reads {_FORMAT}; build it again")
    ids = {name: pl.read_parquet(folder / f"{name}.parquet")["id"].alias("") for name in ("users", "items")}

    def edges(place: int) -> Edges:
        files = [folder / f"{place}.{part}.npy" for part in ("pointers", "neighbours", "weights")]
        arrays = [np.load(file, mmap_mode="r" if mapped else None) for file in files if file.exists()]
        return Edges(arrays[0], arrays[1], arrays[2] if len(arrays) == 3 else None, len(ids["items"]))

    types = {name: edges(1 + place) for place, name in enumerate(header["types"])}
    return InteractionGraph(ids["users"], ids["items"], edges(0), types)
