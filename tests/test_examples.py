"""Each example runs from the command line and reports what it should."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recembed.config import read_settings
from recembed.run import RetrievalConfig

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(script: str, *options: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::UserWarning", str(EXAMPLES / script), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"no {pattern!r} in {text!r}"
    return float(found[1])


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_tested(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= 100
    assert f'run("{script.name}"' in Path(__file__).read_text(), f"write a test that runs {script.name}"


def test_own_module_learns() -> None:
    assert number(r"test AUC (\S+),", run("own_module.py")) > 0.68


def test_torchrec_model_sees_the_same_vectors() -> None:
    pytest.importorskip("torchrec")
    printed = run("torchrec_model.py")
    assert "same vectors: True" in printed
    assert number(r"recembed (\S+),", printed) > 0.7
    assert number(r"TorchRec (\S+)", printed) > 0.7


def test_train_and_export_serves_what_was_trained(real_data: Path, tmp_path: Path) -> None:
    printed = run("train_and_export.py", str(tmp_path))
    assert number(r"test AUC (\S+) over", printed) > 0.6
    assert "exported 1616 vectors" in printed
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_graph_in_a_model_holds_the_past_alone_and_trains(real_data: Path) -> None:
    printed = run("graph_in_a_model.py", "--epochs", "2")
    assert "all before the split" in printed
    assert number(r"lightgcn +seed 0: test AUC (\S+),", printed) > 0.65


def test_cold_start_films_by_content_beat_the_out_of_vocabulary_row(real_data: Path) -> None:
    printed = run("cold_start_films.py", "--rows", "20000", "--epochs", "2")
    cold = {
        name: number(rf"(?m){re.escape(name)} .*\s(0\.\d+) \(\S+\)$", printed) for name in ("id only", "id + content")
    }
    assert cold["id + content"] > cold["id only"] + 0.01


def test_complementary_products_complete_and_similar_ones_are_alike() -> None:
    printed = run("complementary_products.py")
    assert number(r"complements by IN.OUT (\S+),", printed) > 0.9 > 0.1 > number(r"by IN.IN (\S+)", printed)


def test_the_runs_on_hm_are_whole_and_all_measured() -> None:
    folder = EXAMPLES / "hm_retrieval"
    listed = re.search(r"MODELS = \((.*)\)", (folder / "measure.py").read_text())
    assert listed
    assert {file.stem for file in folder.glob("*.yaml")} == set(re.findall(r"\w+", listed[1]))
    for file in folder.glob("*.yaml"):
        config = RetrievalConfig.parse(read_settings(file))
        assert (config.name, config.data.dataset) == (f"hm-{file.stem.replace('_', '-')}", "hm_week")
        assert config.training.refit, "the test day is the day after the last that is trained on"
        assert getattr(config.model, "new_items", True), "articles without purchases are ranked"


@pytest.mark.slow
def test_content_is_worth_something_where_an_app_was_never_trained(real_data: Path) -> None:
    lines = [json.loads(line) for line in run("cold_items/measure.py", "frappe", "--rows", "60000").splitlines()]
    unseen = {line["run"]: line["auc"]["unseen"][0] for line in lines}
    assert len(unseen) == 5 and unseen["id + content"] > unseen["id"] + 0.01
