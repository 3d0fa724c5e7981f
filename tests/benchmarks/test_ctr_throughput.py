"""The benchmark runs on a fresh machine, and its line has the peers' keys."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "benchmarks"
PEERS_KEYS = (
    *("peer", "model", "rows", "vocab", "samples_per_s", "epoch_s", "epochs", "win_median", "win_iqr", "peak_rss_mb"),
    *("auc", "eval_s", "peak_train_mb", "torch", "batch", "mlp", "dim"),
)


@pytest.fixture
def criteo_shaped(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("criteo_shaped")


def lines(*options: str) -> list[dict[str, object]]:
    command = [sys.executable, str(FOLDER / "ctr_throughput.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_drawn_rows_have_the_shape_of_a_click_log(criteo_shaped: ModuleType) -> None:
    log = criteo_shaped.draw(20_000, 4_000, seed=3)
    train, test = log.train.collect(), log.test.collect()
    assert (train.height, test.height, train.width) == (4_000, 1_000, 40)
    assert 18_000 < sum(log.sizes) <= 20_000 + 3 * 26
    for name, size in zip(criteo_shaped.IDS, log.sizes, strict=True):
        assert train[name].min() >= 0 and train[name].max() < size
    popular = train["C26"].value_counts(sort=True)["count"]
    assert popular[0] > 0.05 * train.height  # few ids are frequent, most are rare
    assert (popular == 1).sum() > 0.3 * len(popular)
    assert 0.05 < train["label"].mean() < 0.5
    assert train.equals(criteo_shaped.draw(20_000, 4_000, seed=3).train.collect())


def test_files_are_read_before_rows_are_drawn(criteo_shaped: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "v1m").mkdir()
    for part, rows in (("train", 50), ("test", 20)):
        pl.DataFrame({"label": np.zeros(rows)}).write_parquet(tmp_path / "v1m" / f"{part}.parquet")
    (tmp_path / "v1m" / "meta.json").write_text('{"vocab": [3, 4]}')
    log = criteo_shaped.load(tmp_path, "1m", 30, seed=0)
    assert (log.source, log.sizes, log.train.collect().height, log.test.collect().height) == ("files", [3, 4], 30, 20)
    assert criteo_shaped.load(tmp_path, "10m", 80, seed=0).source == "drawn"


def test_every_combination_prints_the_peers_keys(tmp_path: Path) -> None:
    small = (
        "--fitted-only",
        "--samples",
        "3000",
        "--batch",
        "512",
        "--mlp",
        "16",
        "--dim",
        "4",
        "--data",
        str(tmp_path),
    )
    printed = lines("--model", "deepfm,dlrm", "--table", "multiplexed", *small)
    assert [line["model"] for line in printed] == ["deepfm", "dlrm"]
    for line in printed:
        assert set(PEERS_KEYS) <= set(line)
        assert (line["peer"], line["rows"], line["data"]) == ("recembed 0.1.0", 3000, "drawn")
        assert line["table"] == "multiplexed"
        assert line["samples_per_s"] > 0 and 0.4 < line["auc"] < 1
