"""The YAML file of a comparison: what it means, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recembed.compare import Budget, ComparisonConfig, load_comparison
from recembed.compare.overrides import merged
from recembed.config import RunConfig
from recembed.errors import ConfigError

BASE: dict[str, Any] = {"data": {"dataset": "ml100k"}, "embeddings": {"embedding_dim": 8, "l2": 0.1}}
METHODS: dict[str, Any] = {
    "full": "full",
    "two": {"embeddings": {"table": {"kind": "multiplexed", "probes": 2}}},
    "dotted": {"embeddings.table.kind": "hashed", "embeddings.l2": 0.0, "skip_budgets": [0.5]},
}


def parse(**changes: Any) -> ComparisonConfig:
    return ComparisonConfig.parse({"base": BASE, "methods": METHODS, "budgets": ["158 kB", 0.5]} | changes)


def test_budgets_are_sizes_shares_or_none() -> None:
    assert Budget.parse("1.6 MB").overrides == {"embeddings.embedding_budget": 1_600_000}
    assert Budget.parse(791_000).bytes == 791_000
    assert Budget.parse(0.25).overrides == {"embeddings.ratio": 0.25}
    assert Budget.parse(None) == Budget.parse("full")
    assert Budget.parse("full").overrides == {}
    assert Budget.parse("158 kB").folder == "158kB"
    for wrong in ("much", -1, 0, 2.5, True):
        with pytest.raises((ValueError, TypeError)):
            Budget.parse(wrong)


def test_only_methods_with_a_size_meet_the_budgets() -> None:
    config = parse()
    found = {label: [budget.text for budget in config.budgets_of(label)] for label in METHODS}
    assert found == {"full": ["full"], "two": ["158 kB", "0.5"], "dotted": ["158 kB"]}
    fixed = parse(methods={"full": "full", "fixed": {"embeddings.table": {"kind": "hashed", "num_embeddings": 9}}})
    assert [budget.text for budget in fixed.budgets_of("fixed")] == ["full"]
    own = parse(methods={"full": "full", "own": {"embeddings.table": "hashed", "budgets": [0.1, "full"]}})
    assert [budget.text for budget in own.budgets_of("own")] == ["0.1", "full"]


def test_a_method_is_laid_over_the_base_and_leaves_it_as_it_was() -> None:
    config = parse()
    run = RunConfig.parse(config.settings("two", {"embeddings.ratio": 0.5, "training.seed": 3}))
    assert run.embeddings.table.model_dump()["probes"] == 2
    assert (run.embeddings.l2, run.embeddings.embedding_dim, run.embeddings.ratio) == (0.1, 8, 0.5)
    assert run.training.seed == 3
    assert config.base == BASE
    assert RunConfig.parse(config.settings("dotted", {})).embeddings.l2 == 0.0


def test_a_kind_takes_the_place_of_another_with_all_its_settings() -> None:
    base = {"table": {"kind": "hashed", "probes": 4}, "other": {"a": 1}}
    assert merged(base, {"table": {"kind": "full"}, "other": {"b": 2}}) == {
        "table": {"kind": "full"},
        "other": {"a": 1, "b": 2},
    }


def test_written_and_read_again_it_is_the_same() -> None:
    config = parse(grid={"embeddings.l2": [0.0, 0.1]}, budgets=["158 kB", 0.5, None])
    assert ComparisonConfig.parse(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_a_file_may_name_the_file_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "many.yaml").write_text(yaml.safe_dump({"base": "run.yaml", "methods": {"full": "full"}}))
    config = load_comparison(tmp_path / "many.yaml", ["seeds=[5]", "base.training.epochs=7"])
    assert (config.name, config.seeds) == ("many", (5,))
    assert config.base["training"] == {"epochs": 7}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": [0.1]}, r"unknown key 'budget'; did you mean 'budgets'"),
        ({"budgets": ["two kB"]}, r"'two kB' is no size"),
        ({"seeds": [1, 1]}, r"each counts once"),
        ({"seeds": []}, r"seeds"),
        ({"reference": "ful"}, r"reference 'ful' is none of the methods; did you mean 'full'"),
        ({"base": {"data": {"dataset": "ml100k"}, "trainin": {}}}, r"base: config: trainin: unknown key.*'training'"),
        ({"methods": {"full": "full", "x": "hashd"}}, r"methods\.x: .*'hashd' is not known; did you mean 'hashed'"),
        ({"methods": {"full": "full", "a/b": "full"}}, r"method 'a/b': expected letters"),
        ({"methods": {"full": "full", "x": {"training.epoch": 1}}}, r"methods\.x: .*unknown key 'epoch'"),
        (
            {"methods": {"full": "full", "x": {"embeddings.table": "hashed", "skip_budgets": [0.3]}}},
            r"skips budget '0.3'",
        ),
        (
            {"methods": {"full": {"embeddings.table": "full", "budgets": [0.1], "skip_budgets": [0.1]}}},
            r"skips all budgets",
        ),
        ({"base": BASE | {"split": {"by": "time", "test": 0}}}, r"split\.test = 0: a comparison is of test rows; set"),
        (
            {"base": BASE | {"split": {"by": "time", "valid": 0}}, "grid": {"embeddings.l2": [0, 0.1]}},
            r"split\.valid = 0: the best of the grid is chosen by validation rows; set .* or leave the grid out",
        ),
        ({"grid": {"embeddings.l2": [0.1, -1]}}, r"methods\.full: .*embeddings\.l2"),
        ({"grid": {"embeddings.row_optimizer.learningrate": [0.1]}}, r"did you mean 'learning_rate'"),
    ],
)
def test_what_is_wrong_is_named_before_any_training(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(**changes)


def test_files_that_are_no_comparison(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"lists\.yaml does not exist; did you mean '.*list\.yaml'"):
        load_comparison(tmp_path / "lists.yaml")
    with pytest.raises(ConfigError, match="expected sections with their settings, found list"):
        load_comparison(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match="no valid YAML"):
        load_comparison(tmp_path / "broken.yaml")
