"""``--resume`` and ``--overwrite``: the same rows and settings go on, others are refused, old files never mix with new."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recembed.config import RunConfig
from recembed.errors import ConfigError, DataError
from recembed.run import export_run, train
from recembed.training import MemoryTracker
from tests.run.clicks import clicks, settings


def run(
    folder: Path, *, epochs: int = 1, resume: bool = False, overwrite: bool = False, **changes: Any
) -> dict[str, Any]:
    raw = settings(folder / "clicks.parquet", **changes)
    raw["training"] |= {"epochs": epochs}
    found = train(RunConfig.parse(raw), folder / "run", resume=resume, overwrite=overwrite, progress=False)
    return found.metrics


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    run(tmp_path)
    return tmp_path


def test_more_epochs_go_on_where_the_run_stopped(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    resumed = run(folder, epochs=3, resume=True)
    whole = tmp_path_factory.mktemp("whole")
    clicks().write_parquet(whole / "clicks.parquet")
    assert run(whole, epochs=3)["test"]["logloss"] == resumed["test"]["logloss"]


def test_other_rows_are_refused(folder: Path) -> None:
    clicks().with_columns(click=1 - pl.col("click")).write_parquet(folder / "clicks.parquet")
    with pytest.raises(DataError, match=r"the rows .* are not those the run began with"):
        run(folder, epochs=3, resume=True)


def test_other_settings_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"embeddings\.embedding_dim = 4, but the run began with 8"):
        run(folder, epochs=3, resume=True, embeddings={"embedding_dim": 4, "row_optimizer": {"learning_rate": 0.2}})
    kept = json.loads((folder / "run" / "metrics.json").read_text())
    assert kept["steps"] == 14  # 840 training rows in batches of 64


def test_overwriting_leaves_nothing_of_the_old_run(folder: Path) -> None:
    class Failing(MemoryTracker):
        def dataset(self, name: str, *, digest: str, rows: int, source: str) -> None:
            raise RuntimeError("stopped here")

    raw = settings(folder / "clicks.parquet", model="dcnv2")
    with pytest.raises(RuntimeError, match="stopped here"):
        train(RunConfig.parse(raw), folder / "run", overwrite=True, progress=False, tracker=Failing())
    assert sorted(path.name for path in (folder / "run").iterdir()) == ["config.yaml", "run.json"]


def test_resume_without_a_run_starts_one(tmp_path: Path) -> None:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    assert run(tmp_path, resume=True)["steps"] == 14


def test_an_unfinished_run_is_not_exported(folder: Path) -> None:
    (folder / "run" / "golden.parquet").unlink()
    with pytest.raises(ConfigError, match=r"is not finished .* go on with --resume"):
        export_run(folder / "run", folder / "bundle")
