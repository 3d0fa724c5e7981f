import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.errors import DataError
from recembed.evaluation import bootstrap_auc, delong_interval, evaluate, gauc, predict_logits, summarise


class Doubler(nn.Module):
    """Logits are twice the first id; notes how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Dropout().eval()
        self.calls: list[tuple[bool, bool]] = []

    def forward(self, batch: Batch) -> Tensor:
        self.calls.append((self.training, torch.is_grad_enabled()))
        return batch.ids[:, 0] * self.scale


def make_batches(*sizes: int) -> list[Batch]:
    batches, start = [], 0
    for size in sizes:
        ids = torch.arange(start, start + size).unsqueeze(1)
        labels = torch.stack([ids[:, 0] % 2, ids[:, 0] % 3 == 0], dim=1).float()
        batches.append(Batch(ids, {}, torch.empty(size, 0), labels))
        start += size
    return batches


def simulate(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, rows).astype(float)
    return labels, generator.normal(size=rows) + labels, generator.integers(0, 30, rows)


def test_predictions_keep_the_order_of_the_loader() -> None:
    labels, logits = predict_logits(Doubler(), make_batches(3, 2, 1))
    assert logits.tolist() == [0, 2, 4, 6, 8, 10]
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert logits.dtype == labels.dtype == np.float32
    assert predict_logits(Doubler(), iter(make_batches(4)), label=1)[0].tolist() == [1, 0, 0, 1]


def test_half_precision_logits_become_float32() -> None:
    _, logits = predict_logits(Doubler().to(torch.bfloat16), make_batches(3))
    assert logits.dtype == np.float32
    assert logits.tolist() == [0, 2, 4]


def test_each_module_gets_its_own_mode_back() -> None:
    model = Doubler().train()
    model.frozen.eval()
    predict_logits(model, make_batches(2, 2))
    assert model.calls == [(False, False), (False, False)]
    assert model.training
    assert not model.frozen.training
    assert torch.is_grad_enabled()


def test_the_mode_comes_back_after_an_error() -> None:
    def broken() -> Iterator[Batch]:
        yield from make_batches(2)
        raise OSError("disk gone")

    model = Doubler().train()
    with pytest.raises(OSError, match="disk gone"):
        predict_logits(model, broken())
    assert model.training


def test_a_function_is_a_model_too() -> None:
    assert predict_logits(lambda batch: batch.numeric.new_zeros(len(batch)), make_batches(2))[1].tolist() == [0, 0]


def test_wrong_shapes_and_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"model gave logits \[1, 1\]: expected \[1\]"):
        predict_logits(lambda batch: torch.zeros(len(batch), 1), make_batches(1))
    with pytest.raises(DataError, match="the loader gave no rows"):
        predict_logits(Doubler(), [])
    with pytest.raises(DataError, match="the loader gave no rows"):
        predict_logits(Doubler(), make_batches(0))


def test_summary_holds_every_metric() -> None:
    labels, logits, users = simulate(500)
    got = summarise(labels, logits, users, seed=3, resamples=50)
    interval = bootstrap_auc(labels, logits, groups=users, resamples=50, seed=3)
    grouped = gauc(labels, logits, users)
    assert list(got) == [
        *("auc", "logloss", "ne", "calibration", "n", "positives", "auc_low", "auc_high"),
        *("gauc", "gauc_groups", "gauc_groups_dropped", "warnings"),
    ]
    assert (got["auc"], got["auc_low"], got["auc_high"]) == (interval.value, interval.low, interval.high)
    assert (got["gauc"], got["gauc_groups"], got["gauc_groups_dropped"]) == (grouped.value, 30, 0)
    assert (got["n"], got["positives"], got["warnings"]) == (500, int(labels.sum()), [])
    assert json.loads(json.dumps(got)) == got
    assert "gauc" not in summarise(labels, logits, resamples=1)


def test_delong_stands_in_for_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits, users = simulate(500)
    expected = delong_interval(labels, logits, groups=users)
    got = summarise(labels, logits, users, resamples=0)
    assert (got["auc_low"], got["auc_high"]) == (expected.low, expected.high)
    monkeypatch.setattr(evaluate, "_BOOTSTRAP_ROWS", 400)
    assert summarise(labels, logits, users) == got


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_gives_nan_and_a_warning(label: int) -> None:
    got = summarise([label, label], [0.0, 1.0], ["u", "v"])
    for name in ("auc", "ne", "auc_low", "auc_high", "gauc"):
        assert np.isnan(got[name])
    assert np.isfinite(got["logloss"])
    assert np.isnan(got["calibration"]) == (label == 0)
    assert got["gauc_groups_dropped"] == 2
    assert f"AUC is undefined: all labels are {label}; expected rows of both classes" in got["warnings"]
    assert len(got["warnings"]) == len(set(got["warnings"])) == (4 if label == 0 else 3)


def test_one_user_has_metrics_and_no_interval() -> None:
    got = summarise([0, 1, 1], [0.0, 1.0, 2.0], ["u", "u", "u"])
    assert got["auc"] == got["gauc"] == 1.0
    assert np.isnan(got["auc_low"])
    assert got["warnings"] == ["bootstrap of 1 unit: expected at least 2 rows (or groups) to resample"]


def test_nan_logits_are_refused() -> None:
    with pytest.raises(DataError, match=r"logits: NaN in 1 of 2 rows \(first: row 1\)"):
        summarise([0, 1], [0.0, float("nan")])
