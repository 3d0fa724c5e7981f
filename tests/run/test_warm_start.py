"""Warm start by raw id: ids that two runs share keep their rows, whatever vocabulary ids they have."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recembed.config import RunConfig
from recembed.errors import CheckpointError, ConfigError
from recembed.run import build_model, load_run, train
from recembed.run.build import embedding_of
from recembed.run.warm_start import warm_start
from recembed.schema.fitted import FittedSchema
from recembed.training.pieces import row_states
from recembed.training.saved_tensors import SavedTensors
from tests.run.clicks import clicks, settings

SECOND = {"embedding_dim": 8, "row_optimizer": {"kind": "row_wise_adagrad", "learning_rate": 0.2}}


def run(folder: Path, name: str, rows: pl.DataFrame, **changes: Any) -> list[str]:
    rows.write_parquet(folder / f"{name}.parquet")
    raw = settings(folder / f"{name}.parquet", **changes)
    raw["training"] |= {"epochs": 1}
    said: list[str] = []
    train(RunConfig.parse(raw), folder / name, progress=False, say=said.append)
    return [line for line in said if line.startswith("warm start")]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    run(folder, "old", clicks().filter(pl.col("item") < 35))
    return folder


def newer() -> pl.DataFrame:
    """Rows in which items 0..4 are gone, 35..39 are new, and the others come more often the larger they are."""
    rows = clicks().filter(pl.col("item") >= 5)
    often = rows.filter(pl.col("item") > 30)
    return pl.concat([often, rows]).with_columns(time=pl.int_range(pl.len()))


def fresh(first: Path, table: Any = "full", **changes: Any) -> tuple[Any, FittedSchema, RunConfig]:
    newer().write_parquet(first / "newer.parquet")
    raw = settings(first / "newer.parquet", embeddings=SECOND | {"table": table} | changes)
    config = RunConfig.parse(raw)
    from recembed.data import fit

    fitted = fit(pl.scan_parquet(first / "newer.parquet"), config.schema_)
    return build_model(fitted, config), fitted, config


def test_rows_follow_raw_ids(first: Path) -> None:
    model, fitted, config = fresh(first)
    carried = {one.table: one for one in warm_start(model, fitted, config, first / "old")}
    assert (carried["item"].kept, carried["item"].new, carried["item"].dropped) == (30, 5, 5)
    assert (
        carried["user"].line
        == "user: kept 30 ids, 0 new ones start from out-of-vocabulary, 0 dropped; optimiser rows too"
    )
    old = load_run(first / "old")
    before, now = old.fitted.vocabularies["item"], fitted.vocabularies["item"]
    rows, rows_before = (embedding_of(m).store.rows("item") for m in (model, old.model))
    own, other = now.inverse(range(3, 38)).to_list(), before.inverse(range(3, 38)).to_list()
    assert own != other
    for place, item in enumerate(own, start=3):
        known = other.index(item) + 3 if item in other else 2
        assert torch.equal(rows[place], rows_before[known]), item
    states = row_states(model)["embedding.store.item.sum"]
    saved = SavedTensors([first / "old/checkpoint/last/training.safetensors"]).read("rows/embedding.store.item.sum")
    assert states[3] == saved[other.index(own[0]) + 3] > 0


def test_dense_parameters_are_taken_where_they_fit(first: Path) -> None:
    model, fitted, config = fresh(first)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    warm_start(model, fitted, config, first / "old")
    old = dict(load_run(first / "old").model.named_parameters())
    taken = [name for name, parameter in model.named_parameters() if torch.equal(parameter, old[name])]
    assert len(taken) == len(before) > 2


def test_tables_without_a_row_of_their_own_stay_fresh(first: Path) -> None:
    model, fitted, config = fresh(first, {"kind": "compositional", "exact_below": 0})
    store, slots = embedding_of(model).store, embedding_of(model).tables["item"].slots
    rows = {slot.name: store.rows(slot.name).clone() for slot in slots}
    carried = {one.table: one for one in warm_start(model, fitted, config, first / "old")}
    assert carried["item"].line == "item: fresh rows, its rows are [8, 8] wide, read by ids; before [8], ids"
    assert all(torch.equal(store.rows(name), values) for name, values in rows.items())


def test_hashed_rows_are_taken_whole(first: Path) -> None:
    hashed = SECOND | {"table": {"kind": "hashed", "num_embeddings": 20}}
    run(first, "hashed", clicks(), embeddings=hashed)
    raw = settings(first / "clicks.parquet", embeddings=hashed)
    old = load_run(first / "hashed")
    model = build_model(old.fitted, RunConfig.parse(raw | {"training": {"seed": 9}}))
    warm_start(model, old.fitted, old.config, first / "hashed")
    for name, values in embedding_of(old.model).store.state_dict().items():
        if name.endswith("weight"):
            assert torch.equal(values, embedding_of(model).store.state_dict()[name]), name


def test_a_run_says_what_it_took(first: Path) -> None:
    said = run(first, "new", newer(), warm_start=str(first / "old"))
    assert len(said) == 6
    assert said[0].startswith(f"warm start from {first / 'old'}: user: kept 30 ids, 0 new ones start")


def test_no_run_and_a_damaged_one_are_refused(first: Path) -> None:
    model, fitted, config = fresh(first)
    with pytest.raises(ConfigError, match=r"warm_start .*nowhere: no run there"):
        warm_start(model, fitted, config, first / "nowhere")
    run(first, "damaged", clicks())
    place = first / "damaged/checkpoint/best/weights.safetensors"
    data = place.read_bytes()
    place.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors was changed after it was saved"):
        warm_start(model, fitted, config, first / "damaged")
