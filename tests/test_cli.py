"""The command line: answers on stdout, words on stderr, and exit codes that scripts can trust."""

import errno
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

import recembed.run
from recembed.cli import app
from recembed.cli.answer import Answer
from recembed.cli.command import command
from recembed.config import RunConfig
from recembed.data.datasets import DATASETS
from tests.run.clicks import clicks, settings


def call(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: str | Path) -> str:
    """Expect exit code 2 with one line on stderr and nothing on stdout; return the line."""
    result = call(*words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    return str(result.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``clicks.parquet``, ``clicks.yaml`` and the run ``run``, made by the command."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cli")
    clicks().write_parquet(folder / "clicks.parquet")
    (folder / "clicks.yaml").write_text(yaml.safe_dump(settings(folder / "clicks.parquet")))
    result = call("train", folder / "clicks.yaml", "--set", "training.epochs=2", "--out", folder / "run", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["run"] == str(folder / "run")
    assert {"auc", "logloss", "ne", "n"} <= set(document["test"])
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    result = call("export", folder / "run", "--feature", "item", "--out", folder / "bundle", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["manifest"]["feature"] == "item"
    return folder / "bundle"


def test_train_keeps_the_effective_config(folder: Path) -> None:
    kept = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert kept["training"]["epochs"] == 2
    assert RunConfig.parse(kept).name == "clicks"


def test_stages_are_told_on_stderr_and_kept_in_the_answer(folder: Path) -> None:
    stages = "stages=[{name: prune, do: train, weights: last}, {name: fix, do: settle}]"
    table = "embeddings.table={kind: deeplight, exact_below: 0}"
    words = ("--set", table, "--set", stages, "--set", "training.epochs=1", "--out", folder / "staged", "--json")
    result = call("train", folder / "clicks.yaml", *words)
    assert result.exit_code == 0, result.output
    assert [stage["name"] for stage in json.loads(result.stdout)["stages"]] == ["prune", "fix"]
    assert "stage 1 of 2, prune: training" in result.stderr
    assert re.search(r"stage 2 of 2, fix: auc 0\.\d+, logloss 0\.\d+, done in .* s\n  user: kept", result.stderr)


def test_a_mistake_in_a_stage_is_one_line(folder: Path) -> None:
    line = refused(
        "train", folder / "clicks.yaml", "--set", "stages=[{name: prune, do: setle}]", "--out", folder / "no"
    )
    assert "stage 'prune': do = 'setle' is not known; did you mean 'settle'?" in line


def test_people_see_tables(folder: Path) -> None:
    result = call("train", folder / "clicks.yaml", "--set", "training.epochs=1", "--out", folder / "second")
    assert result.exit_code == 0, result.output
    assert "AUC" in result.stdout
    assert f"run      {folder / 'second'}" in result.stdout
    compared = call("evaluate", folder / "run", "--against", folder / "second")
    assert "paired test on 180 rows" in compared.stdout


def test_evaluate_other_rows_as_json(folder: Path) -> None:
    clicks(50, seed=1).write_parquet(folder / "more.parquet")
    result = call("evaluate", folder / "run", "--data", folder / "more.parquet", "--json")
    document = json.loads(result.stdout)
    assert document["metrics"]["n"] == 50
    assert [row["n"] for row in document["slices"]["unseen"] if row["feature"] == "user"] == [50, 0]
    assert None in [row["auc"] for row in document["slices"]["unseen"]]


def test_nan_is_null(folder: Path) -> None:
    one_class = clicks(50, seed=1).filter(pl.col("click") == 1)
    one_class.write_parquet(folder / "likes.parquet")
    result = call("evaluate", folder / "run", "--data", folder / "likes.parquet", "--json")
    assert "NaN" not in result.stdout
    assert json.loads(result.stdout)["metrics"]["auc"] is None


def test_predict_counts_unseen_ids(folder: Path) -> None:
    rows = clicks(20).drop("click").with_columns(user=pl.lit("stranger"))
    rows.write_csv(folder / "new.csv")
    result = call("predict", folder / "run", folder / "new.csv", "--out", folder / "scores.parquet")
    assert result.exit_code == 0, result.output
    assert "20 rows scored" in result.stdout
    assert "unseen ids of user: 20" in result.stdout
    assert pl.read_parquet(folder / "scores.parquet")["probability"].is_between(0, 1).all()


def test_infer_proposes_a_schema_that_trains(folder: Path) -> None:
    result = call("infer", folder / "clicks.parquet")
    proposed = yaml.safe_load(result.stdout)
    assert {"name": "user", "role": "user"} in proposed["features"]
    assert json.loads(call("infer", folder / "clicks.parquet", "--json").stdout) == proposed
    raw = settings(folder / "clicks.parquet") | {"schema": proposed, "evaluation": {}}
    (folder / "inferred.yaml").write_text(yaml.safe_dump(raw))
    done = call("train", folder / "inferred.yaml", "--set", "training.epochs=1", "--out", folder / "inferred")
    assert done.exit_code == 0, done.output


def test_datasets_says_where_each_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "ml100k").mkdir(parents=True)
    for table in ("ratings", "users", "items"):
        (tmp_path / "data" / "ml100k" / f"{table}.parquet").touch()
    monkeypatch.setenv("RECEMBED_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RECEMBED_CACHE", str(tmp_path / "cache"))
    known = {entry["name"]: entry for entry in json.loads(call("datasets", "--json").stdout)}
    assert set(known) == set(DATASETS)
    assert known["ml100k"]["folder"] == str(tmp_path / "data" / "ml100k")
    assert known["ml100k"]["labels"] == ["rating"]
    assert known["criteo_sample"]["folder"] is None
    assert "ml100k" in call("datasets").stdout


def test_doctor_exits_with_2_where_something_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from recembed.doctor import Check

    checks = [Check("Python", "ok", "3.12.1"), Check("data", "fail", "no such folder", "unset RECEMBED_DATA")]
    monkeypatch.setattr("recembed.doctor.diagnose", lambda: checks)
    result = call("doctor")
    assert result.exit_code == 2
    assert "mend it: unset RECEMBED_DATA" in result.stdout
    assert [check["status"] for check in json.loads(call("doctor", "--json").stdout)] == ["ok", "fail"]


def test_shared_flags_stand_before_or_after(folder: Path) -> None:
    before = call("--json", "infer", folder / "clicks.parquet")
    after = call("infer", folder / "clicks.parquet", "--json")
    assert json.loads(before.stdout) == json.loads(after.stdout)


def test_version() -> None:
    assert call("--version").stdout.startswith("recembed 0.")


# Bad input.


def test_missing_config(folder: Path) -> None:
    line = refused("train", folder / "click.yaml")
    assert f"error: config {folder / 'click.yaml'} does not exist; did you mean" in line


def test_unknown_key_offers_the_nearest(folder: Path, tmp_path: Path) -> None:
    raw = settings(folder / "clicks.parquet", training={"epoch": 1})
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(raw))
    line = refused("train", tmp_path / "wrong.yaml", "--out", tmp_path / "run")
    assert "training.epoch: unknown key 'epoch'; did you mean 'epochs'?" in line
    assert not (tmp_path / "run").exists()


def test_set_on_a_key_that_is_not_there(folder: Path) -> None:
    line = refused("train", folder / "clicks.yaml", "--set", "training.epohcs=3", "--out", folder / "never")
    assert "unknown key 'epohcs'; did you mean 'epochs'?" in line


def test_set_without_a_value(folder: Path) -> None:
    assert "expected key=value" in refused("train", folder / "clicks.yaml", "--set", "training.epochs")


def test_a_run_is_not_replaced_unasked(folder: Path) -> None:
    line = refused("train", folder / "clicks.yaml", "--out", folder / "run")
    assert "holds a run already" in line
    assert "--resume" in line


@pytest.mark.parametrize(
    "words", [("evaluate",), ("predict", "rows.parquet", "--out", "x.csv"), ("export", "--out", "b")]
)
def test_run_that_does_not_exist(folder: Path, words: tuple[str, ...]) -> None:
    line = refused(words[0], folder / "rum", *words[1:])
    assert f"run {folder / 'rum'} does not exist" in line
    assert f"did you mean '{folder / 'run'}'?" in line


def test_missing_data_file(folder: Path) -> None:
    assert "no such file" in refused("infer", folder / "click.parquet")


def test_missing_label_column(folder: Path) -> None:
    line = refused("infer", folder / "clicks.parquet", "--label", "clik")
    assert "label column 'clik' is missing; did you mean 'click'?" in line


def test_scores_need_a_known_ending(folder: Path) -> None:
    line = refused("predict", folder / "run", folder / "clicks.parquet", "--out", folder / "scores.txt")
    assert "expected a file that ends in .parquet or .csv" in line


def test_export_of_an_unknown_feature(folder: Path) -> None:
    assert "'itm'" in refused("export", folder / "run", "--feature", "itm", "--out", folder / "b2")


def test_checkpoint_with_a_changed_byte(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoint").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
    line = refused("evaluate", tmp_path / "run")
    assert str(tmp_path / "run" / "checkpoint") in line


def test_resume_from_a_folder_without_a_run(folder: Path) -> None:
    result = call("train", folder / "clicks.yaml", "--resume", "--out", folder / "fresh", "--set", "training.epochs=1")
    assert result.exit_code == 0, result.output  # there is nothing to go on from: it begins


def test_unknown_option_is_bad_input(folder: Path) -> None:
    result = call("train", folder / "clicks.yaml", "--sets", "a=1")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


# What is not the user's fault, and interruptions.


def toy(error: BaseException) -> typer.Typer:
    one = typer.Typer()

    @one.command()
    @command
    def fail() -> Answer:
        """Fail."""
        sys.stdout.write("a library talks\n")
        raise error

    return one


def test_a_bug_exits_with_1_and_one_line() -> None:
    result = CliRunner().invoke(toy(KeyError("rows")), [])
    assert result.exit_code == 1
    assert result.stderr.startswith("a library talks\nbug: KeyError: 'rows' (--debug shows the traceback")
    assert result.stdout == ""


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(toy(KeyError("rows")), ["--debug"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_a_full_disk_is_no_bug() -> None:
    result = CliRunner().invoke(toy(OSError(errno.ENOSPC, "No space left on device", "run/x")), [])
    assert result.exit_code == 2
    assert "error: run/x: No space left on device; free some space or choose another folder" in result.stderr


def test_ctrl_c_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recembed.run, "train", interrupted)
    result = call("train", folder / "clicks.yaml", "--set", "training.epochs=9", "--out", folder / "cut")
    assert result.exit_code == 130
    assert "--set 'training.epochs=9'" in result.stderr
    assert f"--out {folder / 'cut'} --resume" in result.stderr


def test_a_saved_interruption_exits_with_130(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recembed.training import Trainer

    fit = Trainer.fit

    def cut(self: Trainer, *arguments: Any, **settings: Any) -> Any:
        from dataclasses import replace

        return replace(fit(self, *arguments, **settings), stopped="interrupted")

    monkeypatch.setattr(Trainer, "fit", cut)
    result = call("train", folder / "clicks.yaml", "--set", "training.epochs=1", "--out", folder / "saved", "--json")
    assert result.exit_code == 130
    assert "interrupted, and saved; go on with: recembed train" in result.stderr
    assert json.loads(result.stdout)["run"] == str(folder / "saved")


def test_a_bundle_is_verified_and_a_changed_byte_is_named(bundle: Path, tmp_path: Path) -> None:
    fine = call("verify", bundle, "--json")
    assert fine.exit_code == 0, fine.output
    report = json.loads(fine.stdout)
    assert report["vectors"] == 40
    assert report["golden_rows"] == 180
    changed = tmp_path / "bundle"
    shutil.copytree(bundle, changed)
    data = bytearray((changed / "ranker.pt2").read_bytes())
    data[len(data) // 2] ^= 1
    (changed / "ranker.pt2").write_bytes(data)
    assert "ranker.pt2" in refused("verify", changed)


def test_a_bundle_for_cosine(folder: Path, tmp_path: Path) -> None:
    result = call("export", folder / "run", "--metric", "cosine", "--out", tmp_path / "bundle", "--json")
    assert json.loads(result.stdout)["manifest"]["metric"] == "cosine"
    said = refused("export", folder / "run", "--metric", "angle", "--out", tmp_path / "other")
    assert "metric = 'angle': expected 'dot' or 'cosine'" in said


# In a process of its own.


def process(*words: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "recembed", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)


def test_as_a_process(folder: Path, bundle: Path) -> None:
    fine = process("evaluate", folder / "run", "--json")
    assert fine.returncode == 0, fine.stderr
    assert json.loads(fine.stdout)["metrics"]["n"] == 180
    bad = process("evaluate", folder / "rum")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: run ")
    assert "Traceback" not in bad.stderr
    assert (bundle / "manifest.json").is_file()


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from recembed.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'polars', 'mlflow', 'pydantic', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < 5  # 0.4 seconds on a quiet machine
    assert "quickstart" in done.stdout
