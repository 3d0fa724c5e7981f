"""The multi-stage methods, whole: their own stages, then a bundle that serves what was trained."""

from pathlib import Path
from typing import Any

import pytest

from recembed.config import RunConfig
from recembed.run import export_run, train
from recembed.run.stage_folder import StageFolder, StageRecord
from recembed.tables import TABLES
from tests.run.clicks import clicks, settings

SEVERAL = sorted(kind for kind, method in TABLES.items() if method.recipe)


def config(folder: Path, kind: str) -> RunConfig:
    clicks().write_parquet(folder / "clicks.parquet")
    raw: dict[str, Any] = settings(folder / "clicks.parquet")
    table: dict[str, Any] = {"kind": kind} | ({"exact_below": 0} if "exact_below" in TABLES[kind].model_fields else {})
    raw["embeddings"] |= {"table": table}
    raw["training"] |= {"epochs": 2, "threads": 1}
    short = {"generations": 1, "population": 2}
    raw["stages"] = [step | (short if step["do"] == "widths" else {}) for step in TABLES[kind].recipe]
    return RunConfig.parse(raw)


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_method_goes_through_its_stages_and_is_served(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    run = config(tmp_path, kind)
    result = train(run, tmp_path / "run", progress=False, say=said.append)
    stages = result.metrics["stages"]
    assert [stage["do"] for stage in stages] == [step["do"] for step in TABLES[kind].recipe]
    assert all(stage["found"] for stage in stages if stage["do"] == "settle")
    assert len([line for line in said if line.startswith("stage ") and "done in" in line]) == len(stages)
    export_run(tmp_path / "run", tmp_path / "bundle", feature="item")

    settled, finish = [stage["do"] for stage in stages].index("settle") + 1, StageFolder.finish

    def killed(folder: StageFolder, record: StageRecord) -> None:
        finish(folder, record)
        if record.number == settled:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(StageFolder, "finish", killed)
        with pytest.raises(SystemExit):
            train(run, tmp_path / "cut", progress=False)
    again = train(run, tmp_path / "cut", progress=False, resume=True)
    assert again.metrics["test"]["logloss"] == result.metrics["test"]["logloss"]


def test_widths_are_scored_in_the_bytes_that_the_ratio_allows(tmp_path: Path) -> None:
    """A search by the wide rows of all ids would choose what settling then has no bytes for."""
    clicks().write_parquet(tmp_path / "clicks.parquet")
    raw: dict[str, Any] = settings(tmp_path / "clicks.parquet", model={"kind": "dlrm", "top_units": [16]})
    raw["embeddings"] |= {"table": {"kind": "optembed", "exact_below": 0}, "ratio": 0.3}
    raw["training"] |= {"epochs": 2, "threads": 1}
    widths = {"name": "widths", "do": "widths", "generations": 2, "population": 8, "keep": 2}
    raw["stages"] = [{"name": "search", "do": "train"}, widths, {"name": "prune", "do": "settle"}]
    run = train(RunConfig.parse(raw), tmp_path / "run", progress=False)
    _, searched, settled = run.metrics["stages"]
    assert searched["metrics"] == settled["metrics"]
