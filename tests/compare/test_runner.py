"""Whole comparisons on a small log: cells, failures, tuning, resume, and what is written."""

import base64
import json
import re
import struct
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from recembed.cli import app
from recembed.compare import ComparisonConfig, ComparisonResult, run_comparison
from recembed.compare.cell import CellResult
from recembed.errors import ConfigError
from recembed.evaluation import compare
from tests.run.clicks import clicks, settings

LEARNING_RATE = "embeddings.row_optimizer.learning_rate"


def comparison(folder: Path, **changes: Any) -> ComparisonConfig:
    path = folder / "clicks.parquet"
    if not path.exists():
        clicks().write_parquet(path)
    base = settings(path)
    base["training"] |= {"epochs": 1, "threads": 1}
    methods: dict[str, Any] = {
        "full": "full",
        "hashed": {"embeddings.table": {"kind": "hashed", "keep_exact": False}},
        "impossible": {"embeddings.table": "hashed", "budgets": ["20 B"]},
    }
    raw = {"name": "<clicks>", "base": base, "methods": methods, "budgets": ["2 kB"], "seeds": [0, 1]}
    return ComparisonConfig.parse(raw | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def result(folder: Path) -> ComparisonResult:
    return run_comparison(comparison(folder), folder / "out", progress=False)


def test_one_line_per_method_and_budget(result: ComparisonResult) -> None:
    found = [(line.method, line.budget, line.status, line.seeds) for line in result.lines]
    assert found == [("full", "full", "done", 2), ("hashed", "2 kB", "done", 2), ("impossible", "20 B", "failed", 0)]
    full, hashed, _ = result.lines
    assert full.reference and full.auc_paired is None and full.share == 1
    assert hashed.served_bytes is not None and hashed.served_bytes <= 2000
    # 86 rows of 8 numbers and a first-order weight, see the run's own test
    assert full.served_bytes == full.trained_bytes == 4 * 86 * 9
    assert hashed.share == pytest.approx(hashed.served_bytes / (4 * 86 * 9))
    assert full.lookup_ns is not None and full.lookup_ns > 0


def test_numbers_are_those_of_the_runs(result: ComparisonResult) -> None:
    runs = result.folder / "runs" / "hashed" / "2kB"
    aucs = [json.loads((runs / seed / "metrics.json").read_text())["test"]["auc"] for seed in "01"]
    line = result.lines[1]
    assert line.auc == pytest.approx(sum(aucs) / 2)
    assert line.auc_std == pytest.approx(abs(aucs[0] - aucs[1]) / 2**0.5)
    frames = {
        name: [
            pl.read_parquet(result.folder / "runs" / name / budget / seed / "predictions_test.parquet") for seed in "01"
        ]
        for name, budget in (("full", "full"), ("hashed", "2kB"))
    }
    pairs = [
        compare(a["label"], a["logit"], b["logit"], groups=a["user"])
        for a, b in zip(frames["full"], frames["hashed"], strict=True)
    ]
    assert line.auc_paired is not None and line.auc_paired.seeds is not None
    assert line.auc_paired.seeds.difference == pytest.approx(sum(pair.auc.difference for pair in pairs) / 2)


def test_a_method_that_fails_is_a_line_with_the_reason(result: ComparisonResult) -> None:
    line = result.lines[2]
    assert "20 bytes are fewer than the smallest tables" in line.reason
    assert line.auc is None
    cell = CellResult.read(result.folder / "runs" / "impossible" / "20B" / "1")
    assert cell is not None and cell.status == "failed"
    assert "ConfigError" in (result.folder / "runs" / "impossible" / "20B" / "1" / "error.txt").read_text()


def test_cells_stay_small(result: ComparisonResult) -> None:
    cell = result.folder / "runs" / "full" / "full" / "0"
    assert {path.name for path in cell.iterdir()} == {
        *("cell.json", "config.yaml", "metrics.json", "run.json"),
        *("features.parquet", "collisions.parquet", "plan.parquet", "predictions_test.parquet"),
    }


def test_a_method_of_several_trainings_is_one_cell_and_stays_small(folder: Path, tmp_path: Path) -> None:
    pep = {"embeddings.table": {"kind": "pep", "exact_below": 0}}
    config = comparison(folder, methods={"full": "full", "pep": pep}, budgets=[0.6], seeds=[0])
    line = run_comparison(config, tmp_path, progress=False).lines[1]
    assert line.status == "done", line.reason
    assert line.served_bytes is not None and line.served_bytes <= 0.6 * 4 * 86 * 9
    cell = tmp_path / "runs" / "pep" / "0.6" / "0"
    assert len(list(cell.rglob("stage.json"))) == 3
    assert not list(tmp_path.rglob("*.safetensors"))


def test_csv_and_json(result: ComparisonResult) -> None:
    table = pl.read_csv(result.folder / "comparison.csv")
    assert table["method"].to_list() == ["full", "hashed", "impossible"]
    assert table["auc"].to_list()[:2] == pytest.approx([result.lines[0].auc, result.lines[1].auc])
    assert table["auc"][2] is None
    assert {"auc_std", "auc_seeds_p_value", "auc_rows_low", "logloss_seeds_difference", "served_bytes"} <= set(
        table.columns
    )
    document = json.loads((result.folder / "comparison.json").read_text())
    assert document["lines"][1]["auc_paired"]["seeds"]["difference"] == pytest.approx(table["auc_seeds_difference"][1])
    assert document["test_rows"] == 180


def test_the_page_stands_alone(result: ComparisonResult) -> None:
    text = (result.folder / "comparison.html").read_text(encoding="utf-8")
    assert "<title>&lt;clicks&gt;</title>" in text, "what a user wrote is no markup"
    assert not re.findall(r'(?:src|href)="(?!data:)', text), "nothing is fetched"
    image = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert image is not None
    assert base64.b64decode(image[1]) == (result.folder / "pareto.png").read_bytes()
    line = result.lines[1]
    assert f"{line.auc:.4f} <small>± {line.auc_std:.4f}</small>" in text
    for words in (
        "180 test rows",
        "20 bytes are fewer",
        "Nothing was tuned",
        "kind: deepfm",
        "What was held equal",
        "torch 2",
    ):
        assert words in text


def test_the_chart_is_a_picture(result: ComparisonResult) -> None:
    data = (result.folder / "pareto.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000 and height > 500


def test_a_folder_with_a_comparison_is_refused(result: ComparisonResult, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a comparison already.*--resume, or --overwrite"):
        run_comparison(comparison(folder), result.folder)


def test_resume_reads_what_is_done(result: ComparisonResult, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def count(config: Any, *_: object, **__: object) -> None:
        trained.append(config.name)
        raise RuntimeError("again")

    monkeypatch.setattr("recembed.compare.cell.train", count)
    again = run_comparison(comparison(folder, seeds=[0, 1, 2]), result.folder, resume=True)
    assert [line.auc for line in again.lines] == [line.auc for line in result.lines]
    assert trained == [
        *("impossible 20 B seed 0", "impossible 20 B seed 1"),
        *("full full seed 2", "hashed 2 kB seed 2", "impossible 20 B seed 2"),
    ]
    assert (again.lines[0].status, again.lines[0].reason) == ("partly failed", "RuntimeError: again")


def test_resume_refuses_cells_of_other_settings(result: ComparisonResult, folder: Path) -> None:
    config = comparison(folder)
    other = config.model_copy(update={"base": config.base | {"model": {"kind": "fm"}}})
    with pytest.raises(
        ConfigError, match=r"cell .*full/full/0 was run with model\.(kind|hidden_units).*delete its folder"
    ):
        run_comparison(other, result.folder, resume=True)


def test_a_stopped_cell_goes_on_where_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second cell is stopped after a step, as by a kill; what is there is reported, and the rest is done later."""
    from recembed.run import train

    config = comparison(folder, methods={"full": "full", "hashed": "hashed"}, seeds=[0])
    stopped: list[str] = []

    def stop_second(settings: Any, out: Path, **options: Any) -> Any:
        if settings.name.startswith("hashed") and not stopped:
            stopped.append(settings.name)
            cut = settings.model_copy(update={"training": settings.training.model_copy(update={"checkpoint_every": 2})})
            train(cut, out, **options)
            for name in ("metrics.json", "predictions_test.parquet"):
                (out / name).unlink()
            raise KeyboardInterrupt
        return train(settings, out, **options)

    monkeypatch.setattr("recembed.compare.cell.train", stop_second)
    with pytest.raises(KeyboardInterrupt):
        run_comparison(config, tmp_path / "out", progress=False)
    table = pl.read_csv(tmp_path / "out" / "comparison.csv")
    assert table["status"].to_list() == ["done", "not run"]
    assert "Not finished" in (tmp_path / "out" / "comparison.html").read_text()
    cell = CellResult.read(tmp_path / "out" / "runs" / "hashed" / "2kB" / "0")
    assert cell is not None and cell.status == "running"

    resumed = run_comparison(config, tmp_path / "out", resume=True, progress=False)
    straight = run_comparison(config, tmp_path / "straight", progress=False)
    assert [line.status for line in resumed.lines] == ["done", "done"]
    assert [line.auc for line in resumed.lines] == [line.auc for line in straight.lines]
    assert resumed.lines[1].auc_paired is not None and resumed.lines[1].auc_paired.seeds is None


def test_the_grid_is_tried_once_and_chosen_by_validation_rows(folder: Path, tmp_path: Path) -> None:
    grid = {LEARNING_RATE: [1e-6, 0.2]}
    config = comparison(folder, methods={"full": "full", "hashed": "hashed"}, grid=grid, budgets=[0.3, 0.5])
    config = config.model_copy(update={"tune_per": "method"})
    said: list[str] = []
    result = run_comparison(config, tmp_path / "out", progress=False, say=said.append)
    assert [line.values for line in result.lines] == [{LEARNING_RATE: 0.2}] * 3
    assert [line.tried for line in result.lines] == [2, 2, 0]
    assert sum("validation AUC" in line for line in said) == 4
    trials = tmp_path / "out" / "runs" / "full" / "full" / "grid"
    both = {path.name: CellResult.read(path) for path in trials.iterdir()}
    assert set(both) == {"learning_rate=1e-06", "learning_rate=0.2"}
    best, worst = both["learning_rate=0.2"], both["learning_rate=1e-06"]
    assert best is not None and worst is not None
    assert (best.metrics["valid_auc"] or 0) > (worst.metrics["valid_auc"] or 1)
    assert CellResult.read(trials.parent / "0") == best
    text = (tmp_path / "out" / "comparison.html").read_text()
    assert "grid of 2 points was tried for every method, at its first budget with seed 0" in text
    assert "learning_rate 0.2" in text
    config = yaml.safe_load((trials.parent / "1" / "config.yaml").read_text())
    assert config["embeddings"]["row_optimizer"]["learning_rate"] == 0.2
    assert config["training"]["seed"] == 1


def test_the_command(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(comparison(folder).to_dict()))
    words = ["compare", str(file), "--set", "seeds=[0]", "--out", str(tmp_path / "out")]
    planned = CliRunner().invoke(app, [*words, "--plan", "--json"])
    assert json.loads(planned.stdout)["trainings"] == 3
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert re.search(r"full +full +0\.\d{4} +reference", done.stdout)
    assert "impossible, 20 B failed: " in done.stdout
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2
    assert "holds a comparison already" in again.output
