import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.errors import ConfigError
from recembed.evaluation import auc, predict_logits
from recembed.training import (
    Checkpointer,
    EarlyStopping,
    MemoryTracker,
    Trainer,
    TrainingConfig,
    binary_logloss,
    load_checkpoint,
    read_manifest,
)
from recembed.training.checkpoint import weights
from tests.training.planted import loaders, make_model, planted

STORES = ("torch", "torchrec")
CONFIG = TrainingConfig(epochs=3, batch_size=256, dense_optimizer={"learning_rate": 0.01})


def valid_auc(model: nn.Module) -> float:
    return auc(*predict_logits(model, loaders(CONFIG)[1]))


@pytest.mark.parametrize("row_store", STORES)
def test_a_planted_model_is_learned(row_store: str) -> None:
    model = make_model(row_store)
    assert valid_auc(model) == pytest.approx(0.5, abs=0.06)
    result = Trainer(model, CONFIG).fit(*loaders(CONFIG))
    assert result.stopped == "finished"
    assert result.steps == 60
    assert [record["step"] for record in result.history] == [20, 40, 60]
    assert result.history[-1]["auc"] > 0.85
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"] < np.log(2)
    assert valid_auc(model) == result.best_value
    assert not model.training


def test_both_row_stores_train_alike() -> None:
    histories = [Trainer(make_model(store), CONFIG).fit(*loaders(CONFIG)).history for store in STORES]
    for first, second in zip(*histories, strict=True):
        assert first["logloss"] == pytest.approx(second["logloss"], abs=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    def train(seed: int) -> dict[str, Tensor]:
        config = TrainingConfig(batch_size=512, seed=seed)
        model = make_model("torch")
        Trainer(model, config).fit(loaders(config)[0])
        return weights(model)

    first, again, other = train(1), train(1), train(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["deep.0.weight"], other["deep.0.weight"])


class Worsening:
    """Validation rows whose labels turn over after the second evaluation."""

    def __init__(self) -> None:
        self.loader, self.count = loaders(CONFIG)[1], 0

    def __iter__(self) -> Iterator[Batch]:
        self.count += 1
        for batch in self.loader:
            yield replace(batch, labels=1 - batch.labels) if self.count > 2 else batch


@pytest.mark.parametrize("on_disk", [True, False])
def test_early_stopping_brings_the_best_weights_back(tmp_path: Path, on_disk: bool) -> None:
    config = CONFIG.model_copy(update={"epochs": 20, "early_stopping": EarlyStopping(patience=3)})
    model = make_model("torch")
    kept: dict[int, Tensor] = {}

    def remember(model: nn.Module, batch: Batch) -> Tensor:
        kept[len(kept)] = model.embedding.store.rows("item").clone()
        return binary_logloss(model, batch)

    checkpoint = Checkpointer(tmp_path, planted()[0]) if on_disk else None
    result = Trainer(model, config).fit(loaders(config)[0], Worsening(), objective=remember, checkpoint=checkpoint)
    assert result.stopped == "early_stopping"
    assert (result.best_step, result.best_epoch, result.steps) == (40, 2, 100)
    assert len(result.history) == 5
    assert torch.equal(model.embedding.store.rows("item"), kept[40])  # as it was before step 41
    assert valid_auc(model) == result.best_value == result.history[1]["auc"]
    if on_disk:
        assert (read_manifest(tmp_path).step, read_manifest(tmp_path / "last").step) == (40, 100)
        other = make_model("torchrec", seed=5)
        load_checkpoint(tmp_path, other, planted()[0])
        assert valid_auc(other) == pytest.approx(result.best_value, abs=1e-6)


def test_better_minds_direction_delta_and_nan() -> None:
    up, down = EarlyStopping(min_delta=0.1), EarlyStopping(metric="logloss", min_delta=0.1)
    assert up.better(0.5, None)
    assert not up.better(0.55, 0.5)
    assert up.better(0.65, 0.5)
    assert down.better(0.35, 0.5)
    assert not down.better(0.45, 0.5)
    assert not down.better(0.65, 0.5)
    assert not up.better(float("nan"), None)


def test_labels_all_equal_in_validation_stop_nothing() -> None:
    train, valid = loaders(CONFIG)
    ones = [replace(batch, labels=torch.ones_like(batch.labels)) for batch in valid]
    config = CONFIG.model_copy(update={"early_stopping": EarlyStopping(patience=9)})
    result = Trainer(make_model("torch"), config).fit(train, ones)
    assert (result.stopped, result.best_value, result.steps) == ("finished", None, 60)
    assert np.isnan(result.history[0]["auc"])
    assert result.history[0]["logloss"] > 0
    assert any("label" in warning for warning in result.warnings)
    assert len(result.warnings) == len(set(result.warnings))


def test_without_validation_the_last_weights_are_the_best(tmp_path: Path) -> None:
    model = make_model("torch")
    result = Trainer(model, CONFIG).fit(loaders(CONFIG)[0], checkpoint=Checkpointer(tmp_path))
    assert (result.history, result.best_step) == ([], None)
    assert read_manifest(tmp_path / "best").step == 60
    other = make_model("torch", seed=9)
    load_checkpoint(tmp_path, other)
    assert all(torch.equal(a, b) for a, b in zip(weights(model).values(), weights(other).values(), strict=True))


def test_evaluations_within_an_epoch() -> None:
    config = CONFIG.model_copy(update={"epochs": 2, "evaluate_every": 8})
    result = Trainer(make_model("torch"), config).fit(*loaders(config))
    assert [(record["step"], record["epoch"]) for record in result.history] == [
        *((8, 1), (16, 1), (20, 1)),
        *((24, 2), (32, 2), (40, 2)),
    ]


class OneNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(0.0))
        self.embedding = make_model("torch").embedding

    def forward(self, batch: Batch) -> Tensor:
        return self.number.expand(len(batch))


def moves(slope: float = 1.0, **settings: Any) -> tuple[list[float], list[float]]:
    """Return how far the number moved in each step, and the learning rate of the rows."""
    config = TrainingConfig(batch_size=1000, dense_optimizer={"kind": "sgd", "learning_rate": 0.1}, **settings)
    model, places, rates = OneNumber(), [], []

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        places.append(model.number.item())
        rates.append(model.embedding.store.learning_rate)
        return -slope * model(batch).mean()

    Trainer(model, config).fit(loaders(config)[0], objective=objective)
    places.append(model.number.item())
    return np.diff(places).round(6).tolist(), np.round(rates, 6).tolist()


def test_the_schedule_moves_dense_and_row_learning_rates_alike() -> None:
    dense, rows = moves(schedule={"kind": "linear", "warmup_steps": 2, "final_factor": 0.5})
    assert dense == [0.05, 0.1, 0.1, 0.075, 0.05]
    assert rows == [0.025, 0.05, 0.05, 0.0375, 0.025]  # the row rule's own rate is 0.05


def test_the_gradient_is_clipped() -> None:
    assert moves(slope=30.0, clip_norm=2.0)[0] == pytest.approx([0.2] * 5)
    assert moves(slope=1.5, clip_norm=2.0)[0] == pytest.approx([0.15] * 5)


def test_bf16_runs_products_in_bfloat16_and_keeps_rows_and_loss_in_float32() -> None:
    config = CONFIG.model_copy(update={"precision": "bf16"})
    for row_store in STORES:
        model, seen = make_model(row_store), set()
        model.deep[0].register_forward_hook(lambda module, given, output, seen=seen: seen.add(output.dtype))

        def objective(model: nn.Module, batch: Batch) -> Tensor:
            loss = binary_logloss(model, batch)
            assert loss.dtype == torch.float32
            return loss

        result = Trainer(model, config).fit(*loaders(config), objective=objective)
        assert seen == {torch.bfloat16, torch.float32}  # trained in the one, evaluated in the other
        assert model.embedding.store.rows("item").dtype == torch.float32
        assert result.history[-1]["auc"] == pytest.approx(0.876, abs=0.01)


def test_several_labels_have_a_loss() -> None:
    batch = Batch(torch.zeros(2, 0, dtype=torch.int64), {}, torch.zeros(2, 0), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    expected = -np.mean([np.log(1 / (1 + np.exp(-x))) for x in (2.0, 1.0, -0.5, 3.0)])
    assert binary_logloss(lambda _: logits, batch).item() == pytest.approx(expected)  # type: ignore[arg-type]
    first = -np.mean([np.log(1 / (1 + np.exp(-x))) for x in (2.0, -0.5)])
    assert binary_logloss(lambda _: logits[:, 0], batch).item() == pytest.approx(first)  # type: ignore[arg-type]


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the objective gave a loss of shape \[256\]: expected a scalar"):
        Trainer(make_model("torch"), CONFIG).fit(loaders(CONFIG)[0], objective=lambda model, batch: model(batch))


def test_every_step_is_tracked_once_and_in_order() -> None:
    tracker, losses = MemoryTracker(), []

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        loss = binary_logloss(model, batch)
        losses.append(loss.item())
        return loss

    result = Trainer(make_model("torch"), CONFIG, tracker=tracker).fit(*loaders(CONFIG), objective=objective)
    assert [step for step, name, _ in tracker.metrics if name == "train/loss"] == list(range(1, 61))
    assert tracker.values("train/loss") == losses
    assert tracker.values("valid/auc") == [record["auc"] for record in result.history]
    assert result.history[0]["train_loss"] == pytest.approx(np.mean(losses[:20]))
    assert tracker.ok is None  # closing the run is the caller's


def test_samples_per_second_counts_training_only() -> None:
    train, valid = loaders(CONFIG)

    class Slow:
        def __iter__(self) -> Iterator[Batch]:
            time.sleep(0.3)
            yield from valid

    result = Trainer(make_model("torch"), CONFIG).fit(train, Slow())
    training_seconds = 3 * 5000 / result.samples_per_second
    assert result.seconds > training_seconds + 0.9


def test_threads_come_back() -> None:
    before, seen = torch.get_num_threads(), set()
    other = 2 if before == 1 else 1

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        seen.add(torch.get_num_threads())
        return binary_logloss(model, batch)

    config = CONFIG.model_copy(update={"threads": other, "epochs": 1})
    Trainer(make_model("torch"), config).fit(loaders(config)[0], objective=objective)
    assert seen == {other}
    assert torch.get_num_threads() == before


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    config = TrainingConfig(batch_size=1000, schedule={"warmup_steps": 100})
    with pytest.raises(ConfigError, match="expected fewer than the 5 steps of the run"):
        Trainer(make_model("torch"), config).fit(loaders(config)[0])


class Pulling(nn.Module):
    """A model whose part adds to the loss in training: a pull of its number to 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.number = nn.Parameter(torch.zeros(()))
        self.taken = 0

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch)

    def take_auxiliary_loss(self) -> Tensor | None:
        self.taken += 1
        return (self.number - 1).abs() if self.taken <= 10 else None


def test_a_loss_that_a_module_adds_moves_its_parameters_and_no_evaluation_counts_it() -> None:
    config = TrainingConfig(batch_size=256, dense_optimizer={"kind": "sgd", "learning_rate": 0.05})
    tracker = MemoryTracker()
    model = Pulling(make_model("torch"))
    pulled = Trainer(model, config, tracker=tracker).fit(*loaders(config))
    assert model.number.item() == pytest.approx(10 * 0.05)  # the gradient of |x - 1| below 1 is -1
    plain = MemoryTracker()
    result = Trainer(make_model("torch"), config, tracker=plain).fit(*loaders(config))
    added = np.subtract(tracker.values("train/loss"), plain.values("train/loss")).tolist()
    assert added == pytest.approx([1 - 0.05 * step for step in range(10)] + [0] * 10, abs=1e-6)
    assert pulled.history[0]["logloss"] == result.history[0]["logloss"]
