"""PyTorch's optimisers without its compiler."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["eager"]

_DOORS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


@cache
def eager(rule: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return ``rule`` as a class of the same name that does the same, bit for bit, and never loads PyTorch's compiler.

    An optimiser of ``torch.optim`` loads it when it is built, to tell it what not to compile; that costs a process some
    40 to 70 MB and 2 seconds, and nothing is compiled here. What PyTorch wraps for that end is taken unwrapped.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> weight.grad = torch.tensor([3.0])
    >>> eager(torch.optim.SGD)([weight], lr=0.25).step()
    >>> weight.item()
    0.25
    """
    move = inspect.unwrap(rule.step)

    @torch.no_grad()
    def step(self: Optimizer) -> None:
        move(self)

    methods: dict[str, Any] = {name: inspect.unwrap(getattr(rule, name)) for name in _DOORS}
    return type(rule.__name__, (rule,), {**methods, "step": step})
