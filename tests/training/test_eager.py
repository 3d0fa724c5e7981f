import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from recembed.training import TrainingConfig
from recembed.training.eager import eager

RULES: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.3, "fused": True}),
    (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.3}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (torch.optim.Adagrad, {"lr": 0.1}),
]


def trained(make: Any, given: dict[str, Any]) -> tuple[nn.Linear, Optimizer]:
    """Five steps, half of them by an optimiser that was given the first one's state."""
    model = nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-1, 1, 15).view(3, 5))
        model.bias.fill_(0.5)
    optimizer = make(model.parameters(), **given)
    for step in range(5):
        if step == 2:
            state, optimizer = optimizer.state_dict(), make(model.parameters(), **given)
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        model(torch.linspace(-1, 2, 20).view(4, 5) + step).square().mean().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(("rule", "given"), RULES, ids=lambda value: getattr(value, "__name__", ""))
def test_it_moves_as_torch_does(rule: Any, given: dict[str, Any]) -> None:
    (own, optimizer), (other, expected) = trained(eager(rule), given), trained(rule, given)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), other.parameters(), strict=True))
    state, wanted = optimizer.state_dict(), expected.state_dict()
    assert state["param_groups"] == wanted["param_groups"]
    assert [list(values) for values in state["state"].values()] == [list(v) for v in wanted["state"].values()]
    for values, others in zip(state["state"].values(), wanted["state"].values(), strict=True):
        assert all(a is b or torch.equal(a, b) for a, b in zip(values.values(), others.values(), strict=True))


def test_the_name_of_the_rule_stays() -> None:
    assert eager(torch.optim.AdamW).__name__ == "AdamW"
    assert eager(torch.optim.AdamW) is eager(torch.optim.AdamW)


def test_no_rule_loads_the_compiler() -> None:
    code = (
        "import sys, torch; from recembed.training import TrainingConfig\n"
        "from recembed.training.state import load_optimizer, optimizer_tensors\n"
        "for kind in ('adamw', 'adam', 'sgd', 'adagrad'):\n"
        "    model = torch.nn.Linear(2, 1)\n"
        "    settings = TrainingConfig(dense_optimizer={'kind': kind}).dense_optimizer\n"
        "    optimizer = settings.build(model.parameters())\n"
        "    model(torch.ones(1, 2)).sum().backward(); optimizer.step(); optimizer.zero_grad()\n"
        "    load_optimizer(model, settings.build(model.parameters()), optimizer_tensors(model, optimizer))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_the_settings_take_it() -> None:
    optimizer = TrainingConfig.model_validate({"dense_optimizer": "adam"}).dense_optimizer.build(
        nn.Linear(2, 1).parameters()
    )
    assert type(optimizer) is eager(torch.optim.Adam)
