"""What are texts and photos worth to retrieval on one week of H&M?

    python examples/hm_retrieval/measure.py --out runs [lightgcn freedom ...] [--tune]

The runs are the YAML files beside this one, trained on 16 to 21 September for the epochs that stand there, and tested once on
the 22nd; with ``--tune``, over the grid below, trained on the first five days and judged on the sixth. All 17,986 articles
are ranked, those sold on the 22nd alone among them where a model reads content. One JSON line a run: ``known`` are the
customers who bought before the 22nd, without what they had bought; ``everyone`` gives the others what is popular;
``again`` leaves in the list what was bought before. Texts go through all-MiniLM-L6-v2 and photos through efficientnet-lite0
(needs 'recembed[text,image]'); what the cache knows is not encoded again. Data: ``$RECEMBED_DATA``.
"""

import argparse
import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recembed.config import read_settings
from recembed.evaluation import UserItems, bootstrap, evaluate_ranking
from recembed.run import RetrievalConfig, train_retrieval
from recembed.run.retrieval_data import open_interactions
from recembed.run.retrieval_vectors import read_run_vectors

HERE = Path(__file__).parent
MODELS = ("mf_bpr", "mf", "lightgcn", "vbpr", "freedom", "lirdrec")
BPR = {"training.regularisation": (0.01, 0.1), "training.learning_rate": (0.01, 0.02)}
SOFTMAX = {"training.loss.temperature": (0.1, 0.2), "training.learning_rate": (0.01, 0.02)}
"""The grids, four settings of every model."""
ALL_SIX = {
    "split.values.train": [f"2020-09-{day}" for day in range(16, 22)],
    "split.values.test": ["2020-09-22"],
    "split.by": "column",
    "split.column": "t_dat",
}
K = 20


def catalogue(folder: Path) -> str:
    """Write what is known of each article sold, with the photo of its product, and return the file."""
    data = Path(os.environ["RECEMBED_DATA"]) / "hm_week"
    photos = pl.read_parquet(data / "images.parquet").select("product_code", image="jpeg")
    sold = pl.read_parquet(data / "transactions.parquet", columns=["article_id"]).unique()
    columns = ["article_id", "product_code", "prod_name", "detail_desc"]
    articles = pl.read_parquet(data / "articles.parquet", columns=columns).join(sold, "article_id")
    articles.join(photos, "product_code", "left").sort("article_id").write_parquet(folder / "items.parquet")
    return str(folder / "items.parquet")


def settings(name: str, content: str, given: dict[str, Any]) -> RetrievalConfig:
    """Read a run, and set what was given, by dotted names."""
    raw = read_settings(HERE / f"{name}.yaml", [f"{key}={value}" for key, value in given.items()])
    if "items" in raw["model"]:
        raw["model"]["items"]["content"] = content
    return RetrievalConfig.parse(raw)


def cells(name: str) -> list[dict[str, Any]]:
    """Return the grid of a model."""
    grid = BPR if name == "mf_bpr" else SOFTMAX
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def tune(name: str, content: str, out: Path) -> None:
    """Train each cell of the grid on five days, and tell its validation metrics."""
    for number, given in enumerate(cells(name)):
        config = settings(name, content, {**given, "training.refit": "false", "evaluation.resamples": 0})
        metrics = kept(config, out / "grid" / f"{name}-{number}")
        valid = {key: round(metrics["valid"][f"{key}@{K}"], 4) for key in ("recall", "ndcg")}
        line = {"grid of": name, **given, "training.epochs": metrics["best_epoch"], "valid": valid}
        print(json.dumps(line), flush=True)


def kept(config: RetrievalConfig, folder: Path) -> dict[str, Any]:
    """Return the metrics of a run, which is trained if it is not there."""
    file = folder / "metrics.json"
    if not file.is_file():
        train_retrieval(config, folder, overwrite=True, progress=False)
    metrics: dict[str, Any] = json.loads(file.read_text())
    return metrics


def told(values: pl.DataFrame) -> dict[str, Any]:
    """Return the means over users, with intervals."""
    means = {}
    for name in (f"recall@{K}", f"ndcg@{K}"):
        each = values[name].to_numpy()
        found = bootstrap(lambda weights, each=each: float(each @ weights / weights.sum()), len(each), resamples=1000)  # type: ignore[misc]
        means[name] = [round(number, 4) for number in (found.value, found.low, found.high)]
    return means | {"users": values.height}


def purchases() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows before the test day, and those of it."""
    file = Path(os.environ["RECEMBED_DATA"]) / "hm_week" / "transactions.parquet"
    rows, last = pl.read_parquet(file, columns=["t_dat", "user_id", "article_id"]), pl.date(2020, 9, 22)
    return rows.filter(pl.col("t_dat") < last), rows.filter(pl.col("t_dat") == last)


class Week:
    """The purchases by number, and what is popular among them."""

    def __init__(self) -> None:
        before, after = purchases()
        both = pl.concat([before, after])
        self.users, self.items = both["user_id"].unique().sort(), both["article_id"].unique().sort()
        self.before, self.after = self.numbered(before), self.numbered(after)
        sold = np.bincount(self.items.search_sorted(before["article_id"]).to_numpy(), minlength=len(self.items))
        self.sold = torch.from_numpy(sold).float().unsqueeze(1)
        self.known = self.before.counts > 0

    def numbered(self, rows: pl.DataFrame) -> UserItems:
        """Return purchases by number."""
        users, items = self.users.search_sorted(rows["user_id"]), self.items.search_sorted(rows["article_id"])
        return UserItems(users.to_numpy(), items.to_numpy(), num_users=len(self.users), num_items=len(self.items))

    def popular(self, *, again: bool) -> pl.DataFrame:
        """Return the metrics by customer of the most popular articles, ``again`` those bought before among them."""
        ones = torch.ones(len(self.users), 1)
        seen = None if again else self.before
        found = evaluate_ranking(ones, self.sold, self.after, seen=seen, k=[K]).per_user
        return found.with_columns(known=pl.Series(self.known[found["user"].to_numpy()]))

    def popular_line(self) -> dict[str, Any]:
        """Return what popularity comes to."""
        new, again = self.popular(again=False), self.popular(again=True)
        known = pl.col("known")
        line = {"known": told(new.filter(known)), "everyone": told(new), "again": told(again.filter(known))}
        return {"run": "popular"} | line | {"again, everyone": told(again)}


def measure(name: str, content: str, out: Path, week: Week) -> None:
    """Train on all six days for the epochs of the file, test once, and tell."""
    config = settings(name, content, {"training.holdout": 0, **ALL_SIX})
    metrics = kept(config, out / name)
    known = pl.read_parquet(out / name / "users_test.parquet")
    others = week.popular(again=False).filter(~pl.col("known"))
    columns = [f"recall@{K}", f"ndcg@{K}"]
    vectors, data = read_run_vectors(out / name), open_interactions(config)
    again = evaluate_ranking(vectors.users, vectors.items, data.test, k=[K])
    line = {
        "run": name,
        "known": told(known),
        "everyone": told(pl.concat([known.select(columns), others.select(columns)])),
        "again": told(again.per_user),
        "new items": metrics["new_items"],
        "seconds": round(metrics["training_cpu_seconds"]),
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    """Run the models asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help=f"Of {', '.join(MODELS)}.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of the runs; those that are there are kept.")
    parser.add_argument("--tune", action="store_true", help="The grid, on the validation day.")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    content = catalogue(given.out)
    if given.tune:
        for name in given.models:
            tune(name, content, given.out / "grid")
        return
    week = Week()
    print(json.dumps(week.popular_line()), flush=True)
    for name in given.models:
        measure(name, content, given.out, week)


if __name__ == "__main__":
    main()
