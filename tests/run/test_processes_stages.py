"""Methods of several stages over two processes: the decisions and metrics of one."""

from pathlib import Path
from typing import Any

import pytest

from recembed.config import RunConfig
from recembed.rows.process_group import ProcessGroup
from recembed.run import train
from tests.rows.two_processes import run as in_two
from tests.run.clicks import clicks, settings

pytestmark = pytest.mark.slow
METHODS: dict[str, Any] = {
    "optembed": {"kind": "optembed", "exact_below": 0},
    "pep": {"kind": "pep", "ratio": 0.5, "exact_below": 0},
    "autodim": {"kind": "autodim", "ratio": 0.5, "exact_below": 0},
    "int8": {"kind": "int8"},
}
WIDTHS = [
    {"name": "first", "do": "train", "training": {"epochs": 1}},
    {"name": "widths", "do": "widths", "generations": 2, "population": 4, "keep": 2},
    {"name": "settle", "do": "settle"},
    {"name": "last", "do": "train", "start": "initial", "training": {"epochs": 1}},
]


def config_in(folder: Path, method: str) -> RunConfig:
    embeddings = {
        "embedding_dim": 8,
        "table": METHODS[method],
        "row_optimizer": {"kind": "adagrad", "learning_rate": 0.1, "eps": 1e-4},
    }
    raw = settings(folder / "clicks.parquet", embeddings=embeddings)
    raw["training"] |= {"epochs": 1, "threads": 1}
    raw["evaluation"] = {"resamples": 0}
    if method == "optembed":
        raw["stages"] = WIDTHS
    return RunConfig.parse(raw)


def all_methods(processes: ProcessGroup, folder: str) -> dict[str, Any]:
    found = {}
    for method in METHODS:
        try:
            out = Path(folder) / "two" / method
            train(config_in(Path(folder), method), out, progress=False, processes=processes)
            again = train(config_in(Path(folder), method), out, progress=False, processes=processes, resume=True)
            found[method] = again.metrics
        except Exception as error:
            return {method: f"{type(error).__name__}: {error}"}
    return found


def test_stages_of_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    alone = {m: train(config_in(tmp_path, m), tmp_path / "one" / m, progress=False).metrics for m in METHODS}
    first, second = in_two(all_methods, str(tmp_path), wait=1200)
    assert isinstance(first, dict), first
    assert first.keys() == METHODS.keys() == second.keys(), (first, second)
    for method, metrics in alone.items():
        other = first[method]
        assert isinstance(other, dict), (method, other, second)
        for part in ("valid", "test"):
            for name in ("auc", "logloss"):
                assert other[part][name] == pytest.approx(metrics[part][name], abs=1e-4), (method, part, name)
        ours, theirs = other.get("stages", []), metrics.get("stages", [])
        assert [stage["name"] for stage in ours] == [stage["name"] for stage in theirs]
        assert [stage["found"].keys() for stage in ours] == [stage["found"].keys() for stage in theirs]
