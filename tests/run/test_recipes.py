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
