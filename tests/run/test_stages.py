"""Runs of several stages: what each finds and leaves behind, and that a cut at any place changes nothing."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import recembed.run.stage_work as work
from recembed.config import RunConfig
from recembed.errors import ConfigError
from recembed.run import RunResult, evaluate_run, load_run, train
from recembed.run.stage_work import StageWork
from recembed.run.stages import StageRunner
from recembed.tables import TABLES
from recembed.training import MemoryTracker
from tests.run.clicks import clicks, settings
from tests.run.gated import RECIPE, GatedConfig

NAMES = ["1-search", "2-widths", "3-prune", "4-retrain"]


@pytest.fixture(scope="module", autouse=True)
def _gated() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLES, "gated", GatedConfig)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stages")
    clicks().write_parquet(place / "clicks.parquet")
    return place


def config(folder: Path, **changes: Any) -> RunConfig:
    raw = settings(folder / "clicks.parquet", **changes)
    raw["embeddings"] = {"table": "gated", **raw["embeddings"]}
    raw["training"] = {"epochs": 3, "batch_size": 64, "dense_optimizer": {"learning_rate": 0.01}, "threads": 1}
    raw["training"]["evaluate_every"] = 10
    return RunConfig.parse(raw | {"model": {"kind": "deepfm", "hidden_units": [16], "dropout": 0.2}})


@dataclass
class Whole:
    """A run that nobody cut."""

    result: RunResult
    tracker: MemoryTracker
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Whole:
    tracker, said = MemoryTracker(), []
    result = train(config(folder), folder / "run", progress=False, tracker=tracker, say=said.append)
    return Whole(result, tracker, said)


def weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run / "stages" / stage / "checkpoint" / "best" / "weights.safetensors")


def of_table(tensors: Mapping[str, torch.Tensor], name: str) -> list[torch.Tensor]:
    return [values for key, values in sorted(tensors.items()) if key.endswith(f".{name}")]


def test_the_recipe_of_the_method_is_run_and_written_down(whole: Whole) -> None:
    run = whole.result.folder
    assert sorted(path.name for path in (run / "stages").iterdir()) == NAMES
    kept = load_run(run).config
    assert [(stage.name, stage.do) for stage in kept.stages or ()] == [(step["name"], step["do"]) for step in RECIPE]
    assert whole.result.training.steps == 3 * 14  # 840 training rows in batches of 64, and the last stage's epochs
    assert evaluate_run(run)["metrics"]["auc"] == whole.result.metrics["test"]["auc"] > 0.6


def test_each_stage_says_what_it_found(whole: Whole) -> None:
    stages = whole.result.metrics["stages"]
    assert [stage["name"] for stage in stages] == ["search", "widths", "Prune", "retrain"]
    # user 30, item 40, tags 7 known values and 3 reserved rows each; half of them and the median one stay
    kept = {name: found["kept_rows"] for name, found in stages[2]["found"].items() if not name.endswith(".linear")}
    assert kept == {"user": 17, "item": 22, "tags": 6}
    assert set(stages[1]["found"]) == {"user", "item", "tags"}  # first-order weights have one width
    assert "stage 1 of 4, search: training" in whole.said
    assert any(line.startswith("stage 3 of 4, Prune: auc 0.") for line in whole.said)
    assert any(line.startswith("  item: kept_rows 22, sparsity 0.488") for line in whole.said)
    assert whole.result.metrics["training_seconds"] == pytest.approx(sum(stage["seconds"] for stage in stages))
    assert len(json.loads((whole.result.folder / "stages" / "4-retrain" / "stage.json").read_text())) == 9


def test_each_stage_is_a_tracked_run_under_the_run(whole: Whole) -> None:
    assert [(child.run_name, child.ok) for child in whole.tracker.children] == [(name, True) for name in NAMES]
    search, widths, prune, retrain = whole.tracker.children
    assert search.params["stage.search"] == "True"
    assert search.params["training.epochs"] == "2"
    assert len(search.values("train/loss")) == 28
    assert prune.values("item.kept_rows") == [22]
    assert retrain.values("train/loss")
    assert whole.tracker.values("train/loss") == []
    assert widths.values("search/auc") == sorted(widths.values("search/auc"))


def test_the_widths_stage_ends_with_the_auc_it_logged(whole: Whole) -> None:
    stage = whole.result.metrics["stages"][1]
    state = json.loads((whole.result.folder / "stages" / "2-widths" / "widths.json").read_text())
    scores = {tuple(genome): score for genome, score in state["scores"]}
    best = tuple(stage["found"][name]["width"] for name in state["tables"])
    assert stage["metrics"]["auc"] == scores[best] == max(scores.values())
    found = of_table(weights(whole.result.folder, "2-widths"), "width")
    assert sorted(w.item() for w in found) == sorted([*best, 1, 1, 1])


def test_the_search_moves_the_gates_and_no_other_stage_does(whole: Whole) -> None:
    run = whole.result.folder
    gates = {name: of_table(weights(run, name), "gate") for name in NAMES}
    assert all((gate != 1).all() for gate in gates["1-search"] if gate.numel() > 1)
    assert all(torch.equal(a, b) for a, b in zip(gates["1-search"], gates["3-prune"], strict=True))
    assert all((gate == 1).all() for gate in gates["4-retrain"])  # fresh, and not moved by training


def test_fresh_weights_keep_the_decisions(whole: Whole) -> None:
    run = whole.result.folder
    for name in ("kept", "width"):
        pairs = zip(of_table(weights(run, "3-prune"), name), of_table(weights(run, "4-retrain"), name), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not values.all() for values in of_table(weights(run, "4-retrain"), "kept"))


def started(folder: Path, start: str, monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, torch.Tensor]:
    """Return the weights with which the second training begins."""
    seen: list[dict[str, torch.Tensor]] = []

    class Watching(work.Trainer):
        def fit(self, *arguments: Any, **settings: Any) -> Any:
            seen.append({key: values.clone() for key, values in self.model.state_dict().items()})
            return super().fit(*arguments, **settings)

    monkeypatch.setattr(work, "Trainer", Watching)
    stages = [{"name": "a", "do": "train"}, {"name": "p", "do": "settle"}, {"name": "b", "do": "train", "start": start}]
    train(config(folder, stages=stages), folder / name, progress=False)
    seen[1]["first"] = seen[0]["embedding.store.item.weight"]
    return seen[1]


@pytest.mark.parametrize("start", ["keep", "initial", "fresh"])
def test_where_a_training_starts(
    folder: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    (tmp_path / "clicks.parquet").write_bytes((folder / "clicks.parquet").read_bytes())
    begun = started(tmp_path, start, monkeypatch, start)
    rows, first = begun["embedding.store.item.weight"], begun["first"]
    settled = weights(tmp_path / start, "2-p")
    assert torch.equal(rows, first) == (start == "initial")
    assert torch.equal(rows, settled["embedding.store.item.weight"]) == (start == "keep")
    assert all(torch.equal(a, b) for a, b in zip(of_table(begun, "kept"), of_table(settled, "kept"), strict=True))


class Stopping(MemoryTracker):
    """Asks the process to stop when a number is logged in one stage at a step."""

    stage, step = 0, 0

    def child(self, resume: str | None = None) -> MemoryTracker:
        child = Stopping()
        child.stage, child.step = self.stage - len(self.children), self.step
        self.children.append(child)
        return child

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        super().log(metrics, step)
        if self.stage == 1 and step == self.step and "valid/auc" in metrics:
            signal.raise_signal(signal.SIGTERM)


def same_as_whole(whole: Whole, run: Path, result: RunResult) -> None:
    for stage in NAMES:
        first, second = weights(whole.result.folder, stage), weights(run, stage)
        assert first.keys() == second.keys()
        assert all(torch.equal(values, second[name]) for name, values in first.items()), stage
    kept = [pl.read_parquet(place / "predictions_test.parquet") for place in (whole.result.folder, run)]
    assert kept[0].equals(kept[1])
    assert result.metrics["test"]["auc"] == whole.result.metrics["test"]["auc"]
    found = [[stage["found"] for stage in metrics["stages"]] for metrics in (whole.result.metrics, result.metrics)]
    assert found[0] == found[1]


@pytest.mark.parametrize(("stage", "step"), [(1, 10), (4, 20)])
def test_a_training_cut_in_a_stage_goes_on(folder: Path, whole: Whole, tmp_path: Path, stage: int, step: int) -> None:
    tracker = Stopping()
    tracker.stage, tracker.step = stage, step
    cut = train(config(folder), tmp_path / "run", progress=False, tracker=tracker)
    assert (cut.training.stopped, cut.metrics) == ("interrupted", {})
    assert [child.ok for child in tracker.children] == [True] * (stage - 1) + [False]
    assert not (tmp_path / "run" / "stages" / NAMES[stage - 1] / "stage.json").exists()
    said: list[str] = []
    again = train(config(folder), tmp_path / "run", resume=True, progress=False, say=said.append)
    same_as_whole(whole, tmp_path / "run", again)
    begun = [line for line in said if line.endswith(("training", "widths", "settling"))]
    assert len(begun) == 5 - stage
    assert ("stages finished before: search, widths, Prune" in said) == (stage == 4)


def killed(*_: Any, **__: Any) -> None:
    raise SystemExit


def _killed_after(method: Callable[..., Any]) -> Callable[..., Any]:
    def run(*given: Any, **settings: Any) -> None:
        method(*given, **settings)
        raise SystemExit

    return run


CUTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "in the settling": lambda patch: patch.setattr(StageWork, "settle", killed),
    "before a stage counts": lambda patch: patch.setattr(work.StageFolder, "finish", killed),
    "before the run's checkpoint": lambda patch: patch.setattr("recembed.run.stages.copy_weights", killed),
    "after the last stage": lambda patch: patch.setattr(StageRunner, "run", _killed_after(StageRunner.run)),
}


@pytest.mark.parametrize("place", CUTS)
def test_a_killed_run_goes_on(
    folder: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with monkeypatch.context() as patch:
        CUTS[place](patch)
        with pytest.raises(SystemExit):
            train(config(folder), tmp_path / "run", progress=False)
    same_as_whole(whole, tmp_path / "run", train(config(folder), tmp_path / "run", resume=True, progress=False))


def test_a_killed_width_search_goes_on(
    folder: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, auc = 0, work.auc

    def score(*given: Any) -> float:
        nonlocal scored
        scored += 1
        if scored == 5:
            raise SystemExit
        return auc(*given)

    monkeypatch.setattr(work, "auc", score)
    with pytest.raises(SystemExit):
        train(config(folder), tmp_path / "run", progress=False)
    state = tmp_path / "run" / "stages" / "2-widths" / "widths.json"
    assert 1 <= json.loads(state.read_text())["generation"] <= 2
    same_as_whole(whole, tmp_path / "run", train(config(folder), tmp_path / "run", resume=True, progress=False))


def test_more_epochs_go_on_in_the_last_stage(folder: Path, whole: Whole, tmp_path: Path) -> None:
    def run(epochs: int, name: str, *, resume: bool) -> RunResult:
        changed = config(folder)
        changed = changed.model_copy(update={"training": changed.training.model_copy(update={"epochs": epochs})})
        return train(changed, tmp_path / name, progress=False, resume=resume)

    run(1, "run", resume=False)
    longer = run(2, "run", resume=True)
    assert longer.training.steps == 28
    assert longer.metrics["test"]["logloss"] == run(2, "whole", resume=False).metrics["test"]["logloss"]


def test_a_failed_stage_is_marked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageWork, "settle", killed)
    tracker = MemoryTracker()
    with pytest.raises(SystemExit):
        train(config(folder), tmp_path / "run", progress=False, tracker=tracker)
    assert [child.ok for child in tracker.children] == [True, True, False]
    assert tracker.ok is False


def test_an_empty_list_of_stages_is_a_single_training(folder: Path, tmp_path: Path) -> None:
    result = train(config(folder, stages=[]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "stages").exists()
    assert "stages" not in result.metrics
    gates = of_table(load_file(tmp_path / "run" / "checkpoint" / "best" / "weights.safetensors"), "gate")
    assert all((gate != 1).all() for gate in gates if gate.numel() > 1)  # parameters like any other


def test_overwriting_removes_the_stages(folder: Path, tmp_path: Path) -> None:
    short = [{"name": "only", "do": "train", "row_learning_rate": 0.05, "weights": "last"}]
    train(config(folder, stages=short), tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "stages" / "1-only" / "stage.json").is_file()
    result = train(config(folder, stages=[]), tmp_path / "run", progress=False, overwrite=True)
    assert not (tmp_path / "run" / "stages").exists()
    assert result.metrics["steps"] == 42


def refused(folder: Path, tmp_path: Path, words: str, **changes: Any) -> None:
    with pytest.raises(ConfigError, match=words):
        train(config(folder, **changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize("step", [RECIPE[0], RECIPE[1]])
def test_a_search_needs_validation_rows(folder: Path, tmp_path: Path, step: dict[str, Any]) -> None:
    stages = [{"name": "first", "do": "train"}, step]
    words = f"stage '{step['name']}' searches by validation rows, and this split has none; set split.valid"
    refused(folder, tmp_path, words, stages=stages, split={"by": "time", "valid": 0.0, "test": 0.15})


@pytest.mark.parametrize(
    ("step", "lack"), [(RECIPE[0], "to search"), (RECIPE[1], "no choice of width"), (RECIPE[2], "nothing to settle")]
)
def test_stages_without_work_name_the_methods_that_have_it(
    folder: Path, tmp_path: Path, step: dict[str, Any], lack: str
) -> None:
    stages = [{"name": "first", "do": "train"}, step]
    words = f"stage '{step['name']}': the tables of this run have .*{lack}; methods that do: .*gated"
    refused(folder, tmp_path, words, stages=stages, embeddings={"table": "full", "embedding_dim": 8})


def test_methods_with_different_stages_ask_for_a_list(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OtherConfig(GatedConfig):
        recipe = RECIPE[:1]

    monkeypatch.setitem(TABLES, "other", OtherConfig)
    embeddings = {"embedding_dim": 8, "features": {"item": {"table": {"kind": "gated"}}}, "table": OtherConfig()}
    embeddings["table"] = OtherConfig.model_construct(kind="other")
    refused(
        folder, tmp_path, "tables 'gated', 'other' ask for different stages; write the stages", embeddings=embeddings
    )
