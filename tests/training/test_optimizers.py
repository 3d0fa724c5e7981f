import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from recembed.training import TrainingConfig


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[2.0]]))
        self.bias = nn.Parameter(torch.tensor([3.0]))

    def forward(self) -> Tensor:
        return 4.0 * self.matrix.sum() + self.bias.sum()


def steps(count: int, settings: Any) -> tuple[float, float]:
    model = Line()
    optimizer = TrainingConfig(dense_optimizer=settings).dense_optimizer.build(model.parameters())
    assert optimizer is not None
    for _ in range(count):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
    return model.matrix.item(), model.bias.item()


def test_sgd_with_momentum_by_hand() -> None:
    assert steps(1, {"kind": "sgd", "learning_rate": 0.1}) == pytest.approx((1.6, 2.9))
    # velocity 4, then 0.5 * 4 + 4 = 6
    assert steps(2, {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.5}) == pytest.approx((1.0, 2.75))


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_first_step_of_adam_is_the_learning_rate(kind: str) -> None:
    assert steps(1, {"kind": kind, "learning_rate": 0.1}) == pytest.approx((1.9, 2.9), abs=1e-6)


def test_adagrad_by_hand() -> None:
    # second step: 4 / sqrt(16 + 16)
    assert steps(2, {"kind": "adagrad", "learning_rate": 0.1})[0] == pytest.approx(2 - 0.1 - 0.1 / math.sqrt(2))


def test_weight_decay_leaves_biases_alone() -> None:
    plain = steps(1, {"kind": "adamw", "learning_rate": 0.1})
    decayed = steps(1, {"kind": "adamw", "learning_rate": 0.1, "weight_decay": 0.5})
    assert decayed[0] == pytest.approx(plain[0] - 0.1 * 0.5 * 2.0, abs=1e-6)
    assert decayed[1] == plain[1]


def test_a_parameter_moves_at_its_share_of_the_learning_rate() -> None:
    model = Line()
    model.bias.learning_rate_factor = 0.5
    settings = TrainingConfig(dense_optimizer={"kind": "sgd", "learning_rate": 0.1}).dense_optimizer
    optimizer = settings.build(model.parameters())
    assert optimizer is not None
    model().backward()
    optimizer.step()
    assert (model.matrix.item(), model.bias.item()) == pytest.approx((2 - 0.1 * 4, 3 - 0.05 * 1))
    settings.set_learning_rates(optimizer, 0.1)  # what a schedule does
    optimizer.step()
    assert (model.matrix.item(), model.bias.item()) == pytest.approx((1.6 - 0.01 * 4, 2.95 - 0.005 * 1))


def test_a_word_or_a_mapping_without_kind_will_do() -> None:
    assert TrainingConfig(dense_optimizer="sgd").dense_optimizer.kind == "sgd"
    assert TrainingConfig(dense_optimizer={"weight_decay": 0.1}).dense_optimizer.kind == "adamw"
    assert TrainingConfig().dense_optimizer.learning_rate == 1e-3


def test_settings_survive_a_round_trip() -> None:
    config = TrainingConfig(dense_optimizer={"kind": "sgd", "momentum": 0.9}, early_stopping={"metric": "ne"})
    assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"dense_optimizer\.adam\.momentum\n.*Extra inputs"):
        TrainingConfig(dense_optimizer={"kind": "adam", "momentum": 0.9})


def test_an_unknown_kind_is_refused_with_the_choices() -> None:
    with pytest.raises(ValidationError, match="'adamw', 'adam', 'sgd', 'adagrad'"):
        TrainingConfig(dense_optimizer="lion")


def test_a_model_without_dense_parameters_needs_no_optimizer() -> None:
    assert TrainingConfig().dense_optimizer.build(nn.ReLU().parameters()) is None
