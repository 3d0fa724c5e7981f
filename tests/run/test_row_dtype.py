"""Runs whose rows are of half precision: saved in their type, resumed bit for bit, carried over, served."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recembed.config import RunConfig
from recembed.rows.process_group import ProcessGroup
from recembed.run import load_run, train
from recembed.run.build import embedding_of
from recembed.training import load_checkpoint
from recembed.training.saved_tensors import SavedTensors
from tests.rows.two_processes import run as in_two
from tests.run.clicks import clicks, settings

EMBEDDINGS = {"embedding_dim": 8, "row_optimizer": {"kind": "row_wise_adagrad", "learning_rate": 0.2}}


def run(folder: Path, name: str, epochs: int, dtype: str, **options: Any) -> dict[str, Any]:
    raw = settings(folder / "clicks.parquet", embeddings=EMBEDDINGS | {"row_dtype": dtype})
    raw["training"] |= {"epochs": epochs, "threads": 1}
    raw["warm_start"] = options.pop("warm_start", None)
    return train(RunConfig.parse(raw), folder / name, progress=False, **options).metrics


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    return tmp_path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_resumed_run_is_the_uncut_one_and_its_rows_are_saved_in_their_type(folder: Path, dtype: str) -> None:
    whole = run(folder, "whole", 3, dtype)
    run(folder, "cut", 1, dtype)
    resumed = run(folder, "cut", 3, dtype, resume=True)
    assert resumed["test"]["logloss"] == whole["test"]["logloss"]
    saved = SavedTensors([folder / "cut/checkpoint/last/weights.safetensors"])
    assert saved.read("embedding.store.item.weight").dtype == getattr(torch, dtype)
    assert abs(whole["test"]["auc"] - run(folder, "wide", 3, "float32")["test"]["auc"]) < 0.02
    stores = [embedding_of(load_run(folder / name).model).store for name in ("whole", "cut")]
    assert torch.equal(stores[0].held("item"), stores[1].held("item"))


def test_rows_are_carried_over_between_types(folder: Path) -> None:
    run(folder, "narrow", 1, "bfloat16")
    run(folder, "wide", 1, "float32", warm_start=str(folder / "narrow"))
    run(folder, "narrow_again", 1, "bfloat16", warm_start=str(folder / "wide"))
    found = run(folder, "after", 1, "float16", warm_start=str(folder / "wide"))
    assert found["test"]["auc"] > run(folder, "fresh", 1, "float16")["test"]["auc"]


def two(processes: ProcessGroup, folder: str) -> list[int]:
    place = Path(folder)
    run(place, "two", 1, "bfloat16", processes=processes)
    run(place, "two", 2, "bfloat16", processes=processes, resume=True)
    run(place, "uncut", 2, "bfloat16", processes=processes)
    return [processes.rank]


@pytest.mark.slow
def test_what_two_processes_saved_one_reads_and_goes_on_from(folder: Path) -> None:
    for said in in_two(two, str(folder)):
        assert isinstance(said, list), said
    models = [load_run(folder / name).model for name in ("two", "uncut")]
    for key, values in models[0].state_dict().items():
        assert torch.equal(values, models[1].state_dict()[key]), key
    assert "kernel: torch" in (folder / "two/sharding.yaml").read_text()
    load_checkpoint(folder / "two/checkpoint/last", models[1])
    run(folder, "two", 3, "bfloat16", resume=True)
    assert embedding_of(load_run(folder / "two").model).store.held("item").dtype == torch.bfloat16
