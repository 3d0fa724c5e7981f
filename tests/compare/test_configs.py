"""Every ``configs/compare_*.yaml`` is a whole comparison of a known data set."""

import re
from pathlib import Path

import pytest
import yaml

from recembed.compare import ComparisonConfig, load_comparison
from recembed.compare.runner import grid_points
from recembed.config import RunConfig
from recembed.data.datasets import DATASETS
from recembed.run.build import select_features
from recembed.tables import TABLES

FILES = sorted((Path(__file__).parents[2] / "configs").glob("compare_*.yaml"))
NEED_A_GRAPH = {"lightgcn", "ngcf"}
EVERY_METHOD = {"compare_avazu_sample", "compare_criteo_sample", "compare_frappe"}


def test_the_four_are_there() -> None:
    assert {file.stem for file in FILES} == EVERY_METHOD | {"compare_ml1m"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_comparison_is_whole_and_fits_its_data(file: Path) -> None:
    assert file.read_text().startswith("# "), "the first line says what is compared"
    config = load_comparison(file)
    assert len(config.seeds) >= 3
    assert len(list(grid_points(config.grid))) > 1, "learning rate and L2 are tuned"
    for label in config.methods:
        run = RunConfig.parse(config.settings(label, {}))
        assert run.data.dataset == file.stem.removeprefix("compare_")
        schema = DATASETS[run.data.dataset].schema_of_frame
        run.embeddings.check(select_features(schema, run.data.use))
        assert run.training.early_stopping is not None


@pytest.mark.parametrize("file", [f for f in FILES if f.stem in EVERY_METHOD], ids=lambda file: file.stem)
def test_every_method_takes_part(file: Path) -> None:
    config = load_comparison(file)
    kinds = {RunConfig.parse(config.settings(label, {})).embeddings.table.kind for label in config.methods}
    assert kinds == set(TABLES) - NEED_A_GRAPH


def test_ml1m_is_the_published_protocol() -> None:
    config: ComparisonConfig = load_comparison(next(file for file in FILES if file.stem == "compare_ml1m"))
    base = RunConfig.parse(config.base)
    assert base.data.where == {"rating": (1, 2, 4, 5)}
    assert [budget.bytes for budget in config.budgets] == [1_600_000, 791_000, 158_000]
    model = base.model.model_dump()
    assert (model["cross"]["layers"], model["hidden_units"], base.embeddings.embedding_dim) == (1, (192,), 30)
    assert (model["dropout"], model["batch_norm"], base.training.batch_size) == (0, False, 128)


def test_the_readme_shows_a_comparison_that_parses() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (shown,) = [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if block.startswith("base:")]
    config = ComparisonConfig.parse(yaml.safe_load(shown) | {"base": {"data": {"dataset": "ml100k"}}})
    assert [budget.text for budget in config.budgets_of("two probes")] == ["0.5", "0.1", "158 kB"]
    assert [budget.text for budget in config.budgets_of("int8")] == ["full"]
