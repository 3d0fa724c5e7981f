"""Users and items that came later: their vectors, their mark, and what stays as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recembed.errors import DataError, ExportError
from recembed.export import add_newcomers
from recembed.export.manifest import Manifest
from recembed.export.retrieval import brute_force, verify_pair
from recembed.run import export_retrieval, train_retrieval
from tests.run.test_retrieval import config

LATE = pl.DataFrame(
    {
        "person": ["new", "new", "new", "p1", "p2", "lost", "p1"],
        "film": ["f1", "f1", "f6", "late", "late", "gone", "f1"],
    }
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_retrieval(config(folder, training={"epochs": 1, "refit": False}), folder / "run")
    export_retrieval(folder / "run", folder / "bundles", faiss=True)
    return folder / "bundles"


def table(folder: Path, side: str) -> pl.DataFrame:
    return pl.read_parquet(folder / side / "vectors.parquet")


def test_newcomers_stand_after_the_others_and_are_marked(bundles: Path, tmp_path: Path) -> None:
    manifests = add_newcomers(bundles, LATE, tmp_path / "grown")
    for side, name, new in (("users", "person", "new"), ("items", "film", "late")):
        before, after = table(bundles, side), table(tmp_path / "grown", side)
        assert "provenance" not in before.columns
        assert after[:-1].drop("provenance").equals(before)
        assert after["provenance"].to_list() == ["trained"] * len(before) + ["neighbours"]
        assert (after[name][-1], after["training_count"][-1]) == (new, 0)
        assert manifests[side].count == len(after)
        assert manifests[side].space_id == Manifest.read(bundles / side).space_id
    verify_pair(tmp_path / "grown")
    found, _ = brute_force(tmp_path / "grown", "new", seen=pl.Series(["f1", "f6"]), k=50)
    assert len(found) == 49 and "late" in found.to_list()


def test_a_newcomer_by_hand(bundles: Path, tmp_path: Path) -> None:
    add_newcomers(bundles, LATE, tmp_path / "grown")
    items = table(bundles, "items")
    met = items.filter(pl.col("film").is_in(["f1", "f6"]))
    weights = 1 / np.sqrt(2 * met["training_count"].to_numpy())
    expected = weights @ met["vector"].to_numpy()
    assert table(tmp_path / "grown", "users")["vector"].to_numpy()[-1] == pytest.approx(expected, abs=1e-6)


def test_one_who_came_before_is_computed_anew_and_the_others_stay(bundles: Path, tmp_path: Path) -> None:
    add_newcomers(bundles, LATE, tmp_path / "grown")
    first = table(tmp_path / "grown", "users")
    add_newcomers(tmp_path / "grown", pl.DataFrame({"person": ["newer", "new"], "film": ["f2", "f3"]}))
    second = table(tmp_path / "grown", "users")
    assert second["person"].to_list()[-2:] == ["new", "newer"]
    assert second[:60].equals(first[:60])
    assert second["vector"].to_list()[-2] != first["vector"].to_list()[-1]
    assert table(tmp_path / "grown", "items")["film"].to_list()[-1] == "late"
    verify_pair(tmp_path / "grown")


@pytest.mark.parametrize("cosine", [True, False])
def test_popularity_that_is_put_back(cosine: bool, tmp_path: Path) -> None:
    loss: dict[str, Any] = {"kind": "sampled_softmax", "cosine": cosine, "correction": False, "prior": 1.0}
    training = {
        "epochs": 1,
        "refit": False,
        "loss": {**loss, "temperature": 0.2},
        "sampler": {"kind": "popularity", "negatives": 16, "shared": True},
    }
    train_retrieval(config(tmp_path, training=training), tmp_path / "run")
    export_retrieval(tmp_path / "run", tmp_path / "bundles")
    add_newcomers(tmp_path / "bundles", LATE)
    users, items = (table(tmp_path / "bundles", side) for side in ("users", "items"))
    fresh = users["vector"].to_numpy()[-1]
    assert fresh[-1] == 1.0 and len(fresh) == 9
    if cosine:
        assert np.linalg.norm(fresh[:-1]) == pytest.approx(1.0, abs=1e-5)
    rarest = items[:-1].sort("training_count")["vector"].to_list()[0]
    assert items["vector"].to_numpy()[-1][-1] == pytest.approx(rarest[-1])  # met twice, fewer than any trained film
    verify_pair(tmp_path / "bundles")


def test_what_cannot_be_added_is_told(bundles: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no new person or film among 1 interactions has a trained neighbour"):
        add_newcomers(bundles, pl.DataFrame({"person": ["lost"], "film": ["gone"]}))
    with pytest.raises(DataError, match="no column 'film'"):
        add_newcomers(bundles, LATE.rename({"film": "movie"}))
    with pytest.raises(DataError, match="ids of Int64 looked up among ids of String"):
        add_newcomers(bundles, pl.DataFrame({"person": [1], "film": ["f1"]}))
    (tmp_path / "there").mkdir()
    with pytest.raises(ExportError, match="exists"):
        add_newcomers(bundles, LATE, tmp_path / "there")
