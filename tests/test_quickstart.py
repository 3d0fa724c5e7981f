"""The quickstart, on MovieLens-100K where it is there, and its chart."""

import json
import struct
from pathlib import Path

import pytest
import torch

from recembed.config import RunConfig
from recembed.quickstart import METHODS, MethodResult, QuickstartResult, method_config, run_quickstart
from recembed.quickstart.chart import draw_chart
from recembed.serve import load


def point(method: str, size: int) -> MethodResult:
    return MethodResult(method, 0.7, 0.68, 0.72, 0.6, size, 1000.0, 1.0, Path(method))


def test_the_runs_differ_in_nothing_but_the_table() -> None:
    runs = [method_config(method) for method in METHODS]
    assert [run.embeddings.table.kind for run in runs] == ["full", "hashed", "multiplexed"]  # type: ignore[attr-defined]
    assert [getattr(run.embeddings.table, "ratio", None) for run in runs] == [None, 0.25, 0.25]
    full = runs[0]
    for run in runs:
        embeddings = run.embeddings.model_copy(update={"table": full.embeddings.table})
        assert run.model_copy(update={"name": full.name, "embeddings": embeddings}) == full


def test_overrides_reach_the_run() -> None:
    assert method_config("full", "training.epochs=7").training.epochs == 7


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    draw_chart(
        [point("full", 400_000), point("hashed", 100_000), point("multiplexed", 100_000)], tmp_path / "a.png", "t"
    )
    draw_chart([point("full", 400_000)], tmp_path / "b.png", "t")
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (960, 600)
    assert content != (tmp_path / "b.png").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture(scope="module")
def result(real_data: Path, folder: Path) -> tuple[QuickstartResult, list[str]]:
    torch.set_num_threads(1)
    lines: list[str] = []
    extra = ["training.epochs=1", "tracking.kind=none", "evaluation.resamples=20"]
    return run_quickstart(folder / "out", lines.append, extra), lines


def test_every_stage_is_announced(result: tuple[QuickstartResult, list[str]]) -> None:
    _, lines = result
    assert [line[:3] for line in lines] == ["1/4", "2/4", "2/4", "2/4", "3/4", "4/4"]


def test_a_quarter_of_the_memory(result: tuple[QuickstartResult, list[str]]) -> None:
    full, hashed, multiplexed = (row.embedding_bytes for row in result[0].methods)
    assert 0.23 * full < multiplexed <= 0.26 * full
    assert 0.23 * full < hashed <= 0.26 * full


def test_what_was_measured_is_kept(result: tuple[QuickstartResult, list[str]], folder: Path) -> None:
    found = json.loads((folder / "out" / "metrics.json").read_text())
    assert list(found["methods"]) == list(METHODS)
    for row in result[0].methods:
        kept = json.loads((row.run / "metrics.json").read_text())["test"]
        assert found["methods"][row.method]["auc"] == row.auc == kept["auc"]
        assert row.auc_low < row.auc < row.auc_high
        assert row.auc > 0.6
    assert result[0].chart.is_file()


def test_five_neighbours_of_star_wars(result: tuple[QuickstartResult, list[str]]) -> None:
    near = result[0].neighbours
    assert result[0].film == "Star Wars (1977)"
    assert near.height == 5
    assert near["title"].null_count() == 0
    assert near["score"].is_sorted(descending=True)
    assert load(result[0].bundle).nearest(50, 5)["id"].to_list() == near["item_id"].to_list()


def test_a_second_quickstart_replaces_the_first(
    result: tuple[QuickstartResult, list[str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recembed.quickstart import compare

    monkeypatch.setattr(compare, "METHODS", {"full": "full"})
    again = run_quickstart(folder / "out", lambda _: None, ["training.epochs=1", "tracking.kind=none"])
    assert again.methods[0].auc == result[0].methods[0].auc
    assert load(again.bundle).manifest.dimension == 32


def test_the_config_is_whole() -> None:
    config = method_config("full")
    assert RunConfig.parse(config.to_dict()) == config
