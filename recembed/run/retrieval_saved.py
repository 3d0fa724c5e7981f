"""A retrieval run folder → evaluated again, and exported as bundles of users and items."""

from pathlib import Path
from typing import Any

import polars as pl
import yaml

from recembed.errors import ConfigError
from recembed.evaluation import evaluate_ranking
from recembed.export.manifest import Manifest
from recembed.export.retrieval import Side, export_sides
from recembed.run.retrieval_config import RetrievalConfig
from recembed.run.retrieval_data import open_interactions
from recembed.run.retrieval_vectors import GOLDEN_FILE, read_run_vectors
from recembed.run.saved import run_id

__all__ = ["evaluate_retrieval", "export_retrieval", "is_retrieval_run"]


def is_retrieval_run(folder: Path | str) -> bool:
    """Return whether a folder holds a retrieval run, finished or not."""
    path = Path(folder) / "config.yaml"
    return path.is_file() and yaml.safe_load(path.read_text()).get("task") == "retrieval"


def evaluate_retrieval(folder: Path | str) -> dict[str, Any]:
    """Rank all items once more by the vectors in the run folder; ``metrics`` are those of its test interactions.

    Raises:
        ConfigError: the run is not finished.
    """
    folder = _finished(folder)
    config = RetrievalConfig.parse(yaml.safe_load((folder / "config.yaml").read_text()))
    data, vectors = open_interactions(config), read_run_vectors(folder)
    found = evaluate_ranking(vectors.users, vectors.items, data.test, seen=data.known, k=config.evaluation.k)
    return {"metrics": found.metrics, "test_users": found.per_user.height}


def export_retrieval(
    folder: Path | str, out: Path | str, *, metric: str = "dot", faiss: bool = False, overwrite: bool = False
) -> dict[str, Manifest]:
    """Export the users and the items of a run; see ``recembed.export.retrieval.export_sides``.

    Raises:
        ConfigError: the run is not finished. ExportError: the bundles would recommend something else.
    """
    if metric not in ("dot", "cosine"):
        raise ConfigError(f"metric = {metric!r}: expected 'dot' or 'cosine'")
    folder = _finished(folder)
    vectors = read_run_vectors(folder)
    users, items = vectors.user_ids, vectors.item_ids
    return export_sides(
        Side(users.name, users, vectors.users.numpy(), vectors.user_counts),
        Side(items.name, items, vectors.items.numpy(), vectors.item_counts),
        out,
        golden=pl.read_parquet(folder / GOLDEN_FILE),
        metric="dot" if metric == "dot" else "cosine",
        run={"run_id": run_id(folder)} | _put_back(folder),
        faiss=faiss,
        overwrite=overwrite,
    )


def _put_back(folder: Path) -> dict[str, Any]:
    """Return what the last number of a vector is, where served scores put popularity back."""
    loss = yaml.safe_load((folder / "config.yaml").read_text())["training"]["loss"]
    return {"prior": loss["prior"], "cosine": loss["cosine"]} if loss.get("prior") else {}


def _finished(folder: Path | str) -> Path:
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        raise ConfigError(f"run {folder} is not finished (no metrics.json); go on with --resume")
    return folder
