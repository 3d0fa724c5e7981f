"""Bad input, each with the words a user reads; nothing that was there is lost."""

import errno
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recembed.config import RunConfig, load_config
from recembed.errors import CheckpointError, ConfigError, DataError, ExportError, RecembedError
from recembed.run import evaluate_run, export_run, load_run, predict_run, train
from recembed.serve import load
from tests.run.clicks import SCHEMA, clicks, settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``clicks.parquet`` and ``run``."""
    folder = tmp_path_factory.mktemp("trained")
    clicks().write_parquet(folder / "clicks.parquet")
    raw = settings(folder / "clicks.parquet")
    raw["training"] |= {"epochs": 1}
    train(RunConfig.parse(raw), folder / "run", progress=False)
    return folder


def fails(path: Path, error: type[RecembedError], words: str, **changes: Any) -> None:
    """Train on ``path`` and expect ``words``."""
    with pytest.raises(error, match=words):
        train(RunConfig.parse(settings(path, **changes)), path.parent / "out", progress=False)
    assert not (path.parent / "out" / "metrics.json").exists()


def written(tmp_path: Path, **columns: Any) -> Path:
    """Write the clicks with other columns put in."""
    path = tmp_path / "clicks.parquet"
    clicks().with_columns(**columns).write_parquet(path)
    return path


def test_missing_file(tmp_path: Path) -> None:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    fails(tmp_path / "click.parquet", DataError, r"click\.parquet: no such file.*did you mean 'clicks\.parquet'")


def test_missing_folder(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere" / "*.parquet", DataError, "nowhere")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").touch()
    fails(tmp_path / "clicks.csv", DataError, r"clicks\.csv.*empty")


def test_missing_column(tmp_path: Path) -> None:
    clicks().rename({"item": "items"}).write_parquet(tmp_path / "clicks.parquet")
    fails(tmp_path / "clicks.parquet", DataError, "'item'.*did you mean 'items'")


def test_column_of_another_type(tmp_path: Path) -> None:
    fails(written(tmp_path, item=pl.col("item").cast(pl.Float64)), DataError, "'item'.*Float64")
    fails(written(tmp_path, price=pl.lit("cheap")), DataError, "'price'.*String")


def test_unknown_config_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.epoch: unknown key 'epoch'; did you mean 'epochs'"):
        RunConfig.parse(settings(tmp_path, training={"epoch": 3}))
    with pytest.raises(ConfigError, match=r"embeddings.table.*unknown key 'bucket'"):
        RunConfig.parse(settings(tmp_path, embeddings={"table": {"kind": "hashed", "bucket": 3}}))
    with pytest.raises(ConfigError, match="model kind 'deepfn' is not known; did you mean 'deepfm'"):
        RunConfig.parse(settings(tmp_path, model="deepfn"))


def test_label_outside_0_and_1(tmp_path: Path) -> None:
    fails(written(tmp_path, click=pl.col("item") % 3), DataError, r"label 'click'.*2.*positive_from")


def test_all_labels_equal(tmp_path: Path) -> None:
    fails(written(tmp_path, click=pl.lit(1)), DataError, "label 'click'.*all")


def test_infinite_number(tmp_path: Path) -> None:
    path = written(tmp_path, price=pl.when(pl.col("time") == 3).then(float("inf")).otherwise(pl.col("price")))
    fails(path, DataError, "'price'.*1.*infinite")


def test_nan_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path, price=pl.lit(float("nan")))
    found = train(RunConfig.parse(settings(path)), tmp_path / "out", progress=False)
    assert found.metrics["test"]["auc"] > 0.6


def test_negative_ids_are_ids(tmp_path: Path) -> None:
    path = written(tmp_path, item=-pl.col("item"))
    found = train(RunConfig.parse(settings(path)), tmp_path / "out", progress=False)
    assert found.metrics["test"]["unseen"]["item"] == 0


def test_over_large_id(tmp_path: Path) -> None:
    fails(written(tmp_path, item=pl.lit(2**64 - 1, dtype=pl.UInt64)), DataError, "'item'.*18446744073709551615")


def test_id_type_changed(trained: Path, tmp_path: Path) -> None:
    path = written(tmp_path, item=pl.col("item").cast(pl.String))
    with pytest.raises(DataError, match=r"'item'.*string ids here, but held int ids"):
        predict_run(trained / "run", str(path), tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()


def test_a_column_the_scores_would_overwrite(trained: Path, tmp_path: Path) -> None:
    path = written(tmp_path, logit=pl.lit(0.0))
    with pytest.raises(DataError, match="column 'logit' would be overwritten by the scores; rename it"):
        predict_run(trained / "run", str(path), tmp_path / "scores.parquet")


def test_a_bag_of_no_ids(trained: Path, tmp_path: Path) -> None:
    path = written(tmp_path, tags=pl.lit(""))
    assert predict_run(trained / "run", str(path), tmp_path / "scores.parquet")["rows"] == 1200


def test_ragged_csv(tmp_path: Path) -> None:
    clicks().write_csv(tmp_path / "clicks.csv")
    lines = (tmp_path / "clicks.csv").read_text().splitlines()
    lines[7] += ",surplus"
    (tmp_path / "clicks.csv").write_text("\n".join(lines) + "\n")
    fails(tmp_path / "clicks.csv", DataError, r"clicks\.csv.*line 8.*7.*6")


def test_wrong_encoding(tmp_path: Path) -> None:
    text = clicks().with_columns(user=pl.lit("Zoë")).write_csv()
    (tmp_path / "clicks.csv").write_bytes(text.encode("latin-1"))
    fails(tmp_path / "clicks.csv", DataError, r"clicks\.csv.*UTF-8")


def test_cut_off_last_line(tmp_path: Path) -> None:
    text = clicks().write_csv()
    (tmp_path / "clicks.csv").write_text(text[: text.rindex("|")])
    fails(tmp_path / "clicks.csv", DataError, r"clicks\.csv.*(cut off|last line)")


def test_truncated_parquet(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    fails(path, DataError, r"clicks\.parquet.*(truncated|cut off)")


def test_full_disk_keeps_what_was_there(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = tmp_path / "scores.parquet"
    predict_run(trained / "run", str(trained / "clicks.parquet"), scores)
    before = scores.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(ConfigError, match=r"cannot write .*scores\.parquet \(No space left on device\)"):
        predict_run(trained / "run", str(trained / "clicks.parquet"), scores)
    assert scores.read_bytes() == before


def test_output_that_is_a_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match=r"output .* is a file; choose a folder"):
        train(RunConfig.parse(settings(path)), tmp_path / "out", progress=False)


def test_a_run_is_not_overwritten(trained: Path) -> None:
    with pytest.raises(ConfigError, match="holds a run already; choose another --out"):
        train(RunConfig.parse(settings(trained / "clicks.parquet")), trained / "run", progress=False)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_checkpoint_with_a_changed_byte(trained: Path, tmp_path: Path) -> None:
    raw = settings(trained / "clicks.parquet")
    raw["training"] |= {"epochs": 1}
    train(RunConfig.parse(raw), tmp_path / "run", progress=False)
    _flip(tmp_path / "run" / "checkpoint" / "best" / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        evaluate_run(tmp_path / "run")


def test_bundle_with_a_changed_byte(trained: Path, tmp_path: Path) -> None:
    export_run(trained / "run", tmp_path / "bundle")
    _flip(tmp_path / "bundle" / "vectors.parquet")
    with pytest.raises(ExportError, match=r"vectors\.parquet"):
        load(tmp_path / "bundle")


def test_another_mapping_version(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "clicks.parquet"
    clicks(seed=5).with_columns(item=pl.col("item") + 100).write_parquet(path)
    raw = settings(path)
    raw["training"] |= {"epochs": 1}
    train(RunConfig.parse(raw), tmp_path / "run", progress=False)
    other = load_run(tmp_path / "run")
    from recembed.training import load_checkpoint

    with pytest.raises(CheckpointError, match=f"mapping version .*{other.fitted.version[:12]}"):
        load_checkpoint(trained / "run" / "checkpoint", other.model, other.fitted)


def test_a_run_that_is_not_there(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"run .*ran does not exist.*did you mean '.*run'"):
        evaluate_run(trained / "ran")


def test_set_on_a_key_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {dataset: ml100k}\n")
    with pytest.raises(ConfigError, match=r"training.epoch: unknown key 'epoch'; did you mean 'epochs'"):
        load_config(tmp_path / "run.yaml", ["training.epoch=3"])
    with pytest.raises(ConfigError, match=re.escape("--set 'training': expected key=value")):
        load_config(tmp_path / "run.yaml", ["training"])
    assert load_config(tmp_path / "run.yaml", ["embeddings.table=hashed", "embeddings.table.ratio=0.1"])


def test_schema_without_a_label(tmp_path: Path) -> None:
    fails(written(tmp_path), ConfigError, "has no label", schema=SCHEMA | {"labels": []})
