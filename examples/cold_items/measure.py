"""What is content worth where an item has no clicks? Frappe apps and MovieLens-1M films, by kind of content.

    python examples/cold_items/measure.py frappe --seeds 0 1 2 [--rows 100000] [--text]

The runs are ``frappe.yaml`` and ``ml1m.yaml`` beside this file; a sixth of the items is kept out of training, and AUC is
measured on all test rows, on those of items with fewer than 5 training rows, and on those of items never trained. Words of
texts are a bag whose vectors are learned; with ``--text`` the texts are also encoded with all-MiniLM-L6-v2 (64 tokens, needs
'recembed[text]'). One JSON line a run. Data are read from ``$RECEMBED_DATA``, the rest lies in a folder that is deleted.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from recembed.config import RunConfig, read_settings
from recembed.data import load_dataset
from recembed.run import train

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data", choices=["frappe", "ml1m"])
parser.add_argument("--seeds", type=int, nargs="+", default=[0])
parser.add_argument("--rows", type=int, help="Take so many rows, by chance; by default all.")
parser.add_argument("--text", action="store_true", help="Encode texts too.")
given = parser.parse_args()

DATA = Path(os.environ["RECEMBED_DATA"])
ITEM = {"frappe": "item", "ml1m": "item_id"}[given.data]
ATTRIBUTES = {"frappe": ["category"], "ml1m": ["genres", "year"]}[given.data]
TEXT = {"frappe": ["name", "short_desc"], "ml1m": ["title", "plot"]}[given.data]


def content(folder: Path) -> str:
    """Write a row per item, under the ids of the data set, with the distinct words of its texts; return the file."""
    items = pl.read_parquet(DATA / given.data / {"frappe": "apps.parquet", "ml1m": "items.parquet"}[given.data])
    if given.data == "frappe":
        items = items.with_columns(item=(pl.col("item") + 957).cast(pl.Int16))
    text = pl.concat_str(TEXT, separator=" ", ignore_nulls=True).str.to_lowercase()
    items.with_columns(words=text.str.extract_all("[a-z0-9]{2,}").list.unique()).write_parquet(folder / "items.parquet")
    return str(folder / "items.parquet")


def encoders(file: str) -> dict[str, dict[str, Any] | None]:
    """Return the encoder of the item in each run."""
    base = {"content": file, "id": ITEM, "with_id": False}
    words = {"column": "words", "kind": "bag"}
    runs: dict[str, dict[str, Any] | None] = {"id": None}
    runs[" + ".join(ATTRIBUTES)] = base | {"attributes": ATTRIBUTES}
    runs["words"] = base | {"attributes": [words]}
    runs["content"] = everything = base | {"attributes": [*ATTRIBUTES, words]}
    runs["id + content"] = everything | {"with_id": True, "id_dropout": 0.2}
    if given.text:
        text = {"text": {"columns": TEXT, "max_tokens": 64}}
        runs |= {"text": base | text, "id + content + text": everything | text | {"with_id": True, "id_dropout": 0.2}}
    return runs


def line(name: str, seed: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what one run says: AUC and its interval, by slice."""
    slices = {"all": metrics["test"], **metrics["test"]["cold_items"]}
    told = {key: [round(m[k], 4) for k in ("auc", "auc_low", "auc_high")] for key, m in slices.items() if m["n"]}
    rows = {key: m["n"] for key, m in slices.items()}
    return {"run": name, "seed": seed, "auc": told, "rows": rows, "seconds": round(metrics["seconds"])}


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    for name, encoder in encoders(content(folder)).items():
        for seed in given.seeds:
            raw = read_settings(Path(__file__).parent / f"{given.data}.yaml")
            raw["training"]["seed"] = seed
            if encoder:
                raw["embeddings"]["features"] = {ITEM: {"encoder": encoder}}
            if given.rows:
                data = load_dataset(given.data)
                data.frame.collect().sample(given.rows, seed=1).write_parquet(folder / "rows.parquet")
                raw |= {"data": {"path": str(folder / "rows.parquet")}, "schema": data.schema.model_dump(mode="json")}
            run = train(RunConfig.parse(raw), folder / f"{name} {seed}", progress=False)
            print(json.dumps(line(name, seed, run.metrics)), flush=True)
