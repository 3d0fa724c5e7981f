"""The driver of the speed table: what it runs, how ratios are formed, and one small table from beginning to end."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def line(cell: str, number: int, **more: object) -> dict[str, object]:
    return {"cell": cell, "round": number, **more}


def row(script: Any, **more: Any) -> Any:
    return script("speed_rows").Row(**({"name": "row", "what": "a row", "cell": "ours", "against": "theirs"} | more))


def test_a_ratio_is_formed_within_its_round(script: Any) -> None:
    speeds = {"ours": (10, 20, 90), "theirs": (10, 40, 30)}
    lines = [line(cell, n, samples_per_s=v) for cell, values in speeds.items() for n, v in enumerate(values, 1)]
    result = script("speed_report").compare(lines, row(script, aim=">= 1"))
    assert str(result.ratio) == "1 (0.5-3)"  # 10/10, 20/40, 90/30; of the medians it would be 20/30
    assert (str(result.value), str(result.against), result.reached) == ("20 (10-90)", "30 (10-40)", "yes")
    turned = script("speed_report").compare(lines, row(script, aim="<= 0.9", of_times=True))
    assert str(turned.ratio) == "1 (0.3333-2)" and turned.reached == "no"


def test_both_sides_are_read_by_the_same_key_and_rounds(script: Any) -> None:
    lines = [
        line("ours", 1, win_median=50, samples_per_s=40),
        line("theirs", 1, samples_per_second=1, samples_per_s=20),
        line("ours", 2, win_median=60, samples_per_s=44),
        line("theirs", 2, failed="out of memory"),
    ]
    result = script("speed_report").compare(lines, row(script))
    assert (result.value.median, result.against.median, result.ratio.median) == (40, 20, 2)
    alone = script("speed_report").compare(lines, row(script, against=None, aim="< 50"))
    assert (alone.value.median, alone.ratio, alone.reached) == (55, None, "no")
    rows = [line("ours", 1, rows_per_s=30), line("theirs", 1, samples_per_s=20)]
    assert script("speed_report").compare(rows, row(script)).ratio.median == 1.5  # no number has one name on both sides
    nothing = script("speed_report").compare(lines, row(script, cell="theirs", against="gone", aim=">= 1"))
    assert (nothing.value, nothing.ratio, nothing.reached) == (None, None, "")


def test_a_part_reads_the_lines_of_its_task(script: Any) -> None:
    tasks = {"shuffled, prefetch 0": (7, 5, 6), "shuffled, prefetch 2": (1, 1, 1)}
    lines = [line("ours", 1, task=task, rows_per_s=v) for task, values in tasks.items() for v in values]
    result = script("speed_report").compare(lines, row(script, cell="ours/prefetch 0", against=None))
    assert result.value.median == 6  # one value a round: the median of its lines


def test_a_peer_runs_beside_the_cells_it_names(script: Any) -> None:
    peer = script("speed_rows").Peer.of("Other@*-10m=run --model {model} --mlp {mlp} -v {vocab} -s {seed}")
    assert peer.cells() == ["deepfm-10m", "dcnv2-10m", "deepfm-small-10m"]
    assert peer.words("deepfm-small-10m") == "run --model deepfm --mlp 256,128,64 -v 10m -s {seed}"
    assert [peer.aim(cell) for cell in ("dcnv2-1m", "dcnv2-10m", "csv")] == [">= 3", ">= 20", ">= 25"]
    assert script("speed_rows").Peer.of("TorchRec=x").aim("deepfm-small-1m") == ">= 1.3"
    names = [row.name for row in script("speed_rows").rows_for([peer], ["*Other"], long=True)]
    assert "deepfm-10m:Other" in names and "memory-dcnv2-10m:Other" in names and len(names) == 5
    for wrong in ("Other", "=run", "a/b=run"):
        with pytest.raises(ValueError, match="expected NAME=COMMAND"):
            script("speed_rows").Peer.of(wrong)


def test_every_row_reads_a_cell_and_compared_cells_are_neighbours(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = script("speed_rows").rows_for([], [], long=True)
    cells = script("speed_table").cells_of(rows)
    assert set(cells) == set(script("speed_rows").CELLS)
    assert cells.index("bare-dcnv2-1m") == cells.index("dcnv2-1m") + 1
    peers = [script("speed_rows").Peer.of(f"{name}@deepfm-1m=run") for name in ("A", "B")]
    cells = script("speed_table").cells_of(script("speed_rows").rows_for(peers, [], long=False))
    first = cells.index("deepfm-1m")
    assert cells[first + 1 : first + 5] == ["A:deepfm-1m", "B:deepfm-1m", "bare-deepfm-1m", "multiplexed-1m"]
    assert len(cells) == len(set(cells))


def test_drawn_files_have_the_form_of_given_ones(script: Any, tmp_path: Path) -> None:
    script("speed_data").draw_files(tmp_path / "v1m", ids=500, rows=40)
    log = script("criteo_shaped").load(tmp_path, "1m", 30, seed=0)
    assert (log.source, log.train.collect().height, log.test.collect().height) == ("files", 30, 10)
    words, ids = pl.read_csv(tmp_path / "v1m" / "train.csv"), pl.read_parquet(tmp_path / "v1m" / "train.parquet")
    assert words.shape == (40, 40)
    assert words["C26"].cast(pl.String).n_unique() == ids["C26"].n_unique()
    assert words["I1"].null_count() == ids["I1"].is_nan().sum() > 0


def test_a_small_table_from_beginning_to_end(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("""print('{"rows_per_s": 1, "peak_rss_mb": 5}')""")
    (tmp_path / "broken.py").write_text("raise SystemExit('no data')")
    options = ["--rounds", "2", "--rows", "300", "--long-rows", "300", "--folder", str(tmp_path), "--only", "csv*"]
    for name in ("Slow", "Broken"):
        options += ["--peer", f"{name}@csv={sys.executable} {tmp_path / name.lower()}.py"]
    options += ["--data", str(tmp_path / "none")]
    command = [sys.executable, str(FOLDER / "speed_table.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Broken:csv" in done.stderr  # one of the peers failed, the others went on
    shown = {line.split(" | ")[0]: line.split(" | ") for line in done.stdout.splitlines()}
    slow, broken = (shown[f"| CSV to vocabularies and arrays, beside {name}"] for name in ("Slow", "Broken"))
    assert slow[2] == "1 (1-1)" and slow[-1] == "yes |"
    assert broken[2] == "-" and broken[-1] == " |"
    (file,) = tmp_path.glob("lines-*.jsonl")
    found = [json.loads(text) for text in file.read_text().splitlines()]
    order = [line["cell"] for line in found]
    assert order[3:] == order[2::-1]  # the second round runs backwards
    assert [line["round"] for line in found] == [1] * 3 + [2] * 3
    assert [line["failed"].strip() for line in found if line["cell"] == "Broken:csv"] == ["no data"] * 2
    again = subprocess.run([*command, "--report", str(file)], capture_output=True, text=True, check=True)
    assert again.stdout.splitlines() == done.stdout.splitlines()[: len(again.stdout.splitlines())]


@pytest.fixture
def bare_loop(script: Any) -> ModuleType:
    pytest.importorskip("fbgemm_gpu")
    module: ModuleType = script("bare_loop")
    return module


def test_the_first_order_weights_of_the_bare_loop_move_by_row_wise_adagrad(bare_loop: ModuleType) -> None:
    torch = bare_loop.torch
    weights = bare_loop.FirstOrder(5, learning_rate=0.1)
    ids = torch.tensor([[1, 3]])
    for gradient in (3.0, 4.0):
        weights(ids).backward(torch.tensor([gradient]))
    assert weights(ids).item() == pytest.approx(2 * -0.1 * (3 / 3 + 4 / 5), rel=1e-5)  # s = 9, then 9 + 16
    assert weights(torch.tensor([[0, 2]])).item() == 0


@pytest.mark.parametrize("model", ["deepfm", "dcnv2"])
def test_the_bare_loop_prints_the_keys_of_ours(
    model: str,
    bare_loop: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = "--vocab 100k --samples 3000 --batch 512 --mlp 16 --dim 4 --precision bf16"
    monkeypatch.setattr(sys, "argv", ["bare_loop.py", *small.split(), "--model", model, "--data", str(tmp_path)])
    bare_loop.main()
    printed = json.loads(capsys.readouterr().out)
    assert (printed["rows"], printed["data"], printed["model"]) == (3000, "drawn", model)
    assert printed["samples_per_s"] > 0 and printed["peak_train_mb"] > 0 and 0.4 < printed["auc"] < 1


def test_adam_on_rows_and_sparse_adam_agree_on_the_first_step(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--ids", "2000", "--batch", "64", "--dim", "4", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["row_adam.py", *small])
    script("row_adam").main()
    ours, theirs = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    assert ours["largest_difference"] < 1e-6
    assert ours["rows"] == theirs["rows"] == 26 * 64 and ours["rows_per_s"] > 0
