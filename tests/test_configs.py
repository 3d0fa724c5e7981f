"""Every file in ``configs/`` is a whole run of a known data set, or (``compare_*``) a comparison of runs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recembed.cli import app
from recembed.config import load_config, read_settings
from recembed.data.datasets import DATASETS
from recembed.quickstart import METHODS, method_config
from recembed.run import RetrievalConfig
from recembed.run.build import select_features
from recembed.run.retrieval_data import open_interactions

FOLDER = Path(__file__).parent.parent / "configs"
RETRIEVAL = [file for file in sorted(FOLDER.glob("*.yaml")) if "\ntask: retrieval\n" in file.read_text()]
FILES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("compare_*.yaml")) - set(RETRIEVAL))
FLOOR = {
    "avazu_sample": 0.65,
    "book_crossing": 0.65,
    "criteo_sample": 0.70,
    "frappe": 0.90,
    "ml100k": 0.65,
    "ml1m": 0.75,
    "ml1m_ood": 0.55,
    "ml_latest_small": 0.55,
    "open_bandit_small": 0.50,
    "womens_clothing_reviews": 0.52,
}
"""Test AUC after one epoch that a run which learns anything exceeds."""
QUICK = ("ml100k", "womens_clothing_reviews")

by_name = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@by_name
def test_a_config_is_whole_and_fits_its_data(file: Path) -> None:
    assert file.read_text().startswith("# "), "the first line says what the run is"
    config = load_config(file)
    assert config.data.dataset == file.stem
    info = DATASETS[file.stem]
    schema = config.schema_ or info.schema_of_frame
    assert schema.labels
    config.embeddings.check(select_features(schema, config.data.use))
    assert set(config.evaluation.slices) <= {feature.name for feature in schema.categorical}
    assert config.split == info.split, "the customary cut, spelled out"


@pytest.mark.parametrize("file", RETRIEVAL, ids=lambda file: file.stem)
def test_a_retrieval_config_is_whole_and_fits_its_data(file: Path) -> None:
    assert file.read_text().startswith("# "), "the first line says what the run is"
    config = RetrievalConfig.parse(read_settings(file))
    schema = DATASETS[config.data.dataset or ""].schema_of_frame
    assert schema.role("user")
    assert schema.role("item")
    assert config.name.replace("-", "_") == file.stem
    assert config.training.refit or file.stem.startswith("tiktok"), "published figures there are without a refit"


@pytest.mark.parametrize("file", RETRIEVAL, ids=lambda file: file.stem)
def test_a_retrieval_config_reads_its_data(file: Path, real_data: Path) -> None:
    data = open_interactions(RetrievalConfig.parse(read_settings(file)))
    assert len(data.train) > len(data.test) > 0
    assert data.test.num_items - data.unknown_items == data.train.num_items


def test_the_published_splits_have_runs() -> None:
    tiktok = {f"tiktok_{kind}" for kind in ("freedom", "lightgcn", "lirdrec", "mf", "vbpr")}
    names = {"gowalla_lightgcn", "gowalla_ngcf", "movielens_lightgcn", "yelp2018_lightgcn", *tiktok}
    assert names == {file.stem for file in RETRIEVAL}


def test_every_data_set_with_labels_has_a_run() -> None:
    labelled = {name for name, info in DATASETS.items() if info.schema_of_frame.labels}
    assert {file.stem for file in FILES} == labelled == set(FLOOR)


def test_the_runs_show_the_first_models_and_methods() -> None:
    configs = [load_config(file) for file in FILES]
    models = {"logistic_regression", "fm", "wide_and_deep", "deepfm", "dlrm", "dcnv2"}
    assert models <= {config.to_dict()["model"]["kind"] for config in configs}
    assert {"full", "hashed", "multiplexed"} <= {config.to_dict()["embeddings"]["table"]["kind"] for config in configs}


def test_the_run_of_the_quickstart_stands_in_configs() -> None:
    last = method_config(list(METHODS)[-1])
    assert last.model_copy(update={"name": "ml100k-multiplexed"}) == load_config(FOLDER / "ml100k.yaml")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(FLOOR)]
)
def test_one_epoch_learns(name: str, real_data: Path, tmp_path: Path) -> None:
    words = ["train", str(FOLDER / f"{name}.yaml"), "--out", str(tmp_path / "run"), "--json"]
    words += ["--set", "training.epochs=1", "--set", "tracking.kind=none", "--set", "training.threads=1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["test"]["auc"] > FLOOR[name]
