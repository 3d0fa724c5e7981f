"""Adam of retrieval training: beside PyTorch's own class."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from recembed.retrieval.adam import Adam


def test_it_moves_as_the_class_does_bit_for_bit() -> None:
    random = torch.Generator().manual_seed(0)
    start = torch.randn(7, 5, generator=random)
    own, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    adam, expected = Adam([own]), torch.optim.Adam([other], fused=True)
    for learning_rate in (0.1, 0.05, 0.002):
        gradient = torch.randn(7, 5, generator=random)
        own.grad, other.grad = gradient.clone(), gradient.clone()
        adam.step(learning_rate)
        expected.param_groups[0]["lr"] = learning_rate
        expected.step()
        assert torch.equal(own, other) and not torch.equal(own, start)
    assert all(torch.equal(value, expected.state[other][name]) for name, value in adam.state[own].items())


def test_gradients_are_freed_and_what_has_none_stays() -> None:
    moved, unread, frozen = (nn.Parameter(torch.ones(2), requires_grad=asks) for asks in (True, True, False))
    adam = Adam([moved, unread, frozen])
    moved.grad = torch.ones(2)
    adam.step(0.5)
    assert [parameter.grad for parameter in (moved, unread, frozen)] == [None] * 3
    assert moved.tolist() == pytest.approx([0.5, 0.5])
    assert unread.tolist() == frozen.tolist() == [1.0, 1.0]
    assert set(adam.state) == {moved, unread}


def test_a_step_does_not_load_the_compiler() -> None:
    """Some 70 MB that a training would hold for nothing."""
    lines = (
        "import sys, torch",
        "from recembed.retrieval.adam import Adam",
        "weight = torch.nn.Parameter(torch.ones(1))",
        "weight.grad = torch.ones(1)",
        "Adam([weight]).step(0.5)",
        "print(round(weight.item(), 4), 'torch._dynamo' in sys.modules)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.5", "False"]
