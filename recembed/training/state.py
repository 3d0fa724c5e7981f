"""All that a run needs to go on exactly where it was, as plain numbers and tensors."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recembed.errors import CheckpointError

__all__ = [
    "Best",
    "RunState",
    "load_optimizer",
    "optimizer_tensors",
    "random_tensors",
    "restore_random",
    "seed_everything",
]


@dataclass
class Best:
    """The best evaluation so far."""

    value: float
    step: int
    epoch: int


@dataclass
class RunState:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done.
        evaluated: The step of the last evaluation.
        waited: Evaluations since the best one.
        best: The best evaluation.
        history: One record per evaluation.
        warnings: What the user should know at the end, each sentence once.
        loss_sum, loss_count: Of the steps since the last evaluation.
        samples: Rows trained on, counted with repetition.
        training_seconds: Time spent on steps, the loader's included.
        seconds: Time spent altogether.
    """

    step: int = 0
    evaluated: int = 0
    waited: int = 0
    best: Best | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0
    samples: int = 0
    training_seconds: float = 0.0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "RunState":
        """Build from ``to_json``'s values."""
        best = Best(**raw["best"]) if raw["best"] else None
        return cls(**{**raw, "best": best})


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_tensors(rank: int = 0) -> dict[str, Tensor]:
    """Return the states of the global generators of python, numpy and torch in process ``rank``."""
    _, words, spare = random.getstate()
    legacy: Any = np.random.get_state()
    tensors = {
        "random/torch": torch.get_rng_state(),
        "random/python": torch.tensor(words, dtype=torch.int64),
        "random/python_spare": torch.tensor([] if spare is None else [spare], dtype=torch.float64),
        "random/numpy": torch.tensor([*legacy[1].tolist(), *legacy[2:4]], dtype=torch.int64),
        "random/numpy_spare": torch.tensor([legacy[4]], dtype=torch.float64),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # the GPU of this process, and no other
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    return {name.replace("random/", _generators(rank)): state for name, state in tensors.items()}


def _generators(rank: int) -> str:
    return f"random/rank-{rank}/" if rank else "random/"


def restore_random(tensors: Mapping[str, Tensor], rank: int = 0) -> None:
    """Put the generators back to what ``random_tensors`` saw in process ``rank``; other devices' are left alone.

    A process that there was not keeps its own.
    """
    prefix = _generators(rank)
    if f"{prefix}torch" not in tensors:
        return
    tensors = {name.replace(prefix, "random/"): state for name, state in tensors.items() if name.startswith(prefix)}
    torch.set_rng_state(tensors["random/torch"])
    spare = tensors["random/python_spare"].tolist()
    random.setstate((3, tuple(tensors["random/python"].tolist()), spare[0] if spare else None))
    *words, place, has_spare = tensors["random/numpy"].tolist()
    np.random.set_state(("MT19937", np.array(words, np.uint32), place, has_spare, tensors["random/numpy_spare"].item()))
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])


def _names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of the optimiser's parameters, in its order."""
    by_identity = {id(parameter): name for name, parameter in model.named_parameters()}
    return [by_identity[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_tensors(model: nn.Module, optimizer: Optimizer | None, prefix: str = "optimizer") -> dict[str, Tensor]:
    """Return the states of a dense optimiser as ``<prefix>/<state>/<parameter>``."""
    if optimizer is None:
        return {}
    names, states = _names(model, optimizer), optimizer.state_dict()["state"]
    return {
        f"{prefix}/{state}/{names[index]}": value
        for index, values in states.items()
        for state, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(
    model: nn.Module, optimizer: Optimizer | None, tensors: Mapping[str, Tensor], prefix: str = "optimizer"
) -> None:
    """Put the states of ``optimizer_tensors`` into a fresh optimiser.

    Raises:
        CheckpointError: they belong to another kind of optimiser or to other parameters.
    """
    saved = {name: value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
    if optimizer is None:
        return
    states: dict[int, dict[str, Tensor]] = {}
    names = _names(model, optimizer)
    for name, value in saved.items():
        _, state, parameter = name.split("/", 2)
        if parameter not in names:
            raise CheckpointError(f"the optimiser's state {name} belongs to no trainable parameter of this model")
        states.setdefault(names.index(parameter), {})[state] = value
    expected = _STATES[type(optimizer).__name__]
    if any(set(values) - expected for values in states.values()) or (saved and not expected):
        kinds = sorted({name.split("/", 2)[1] for name in saved})
        raise CheckpointError(
            f"the checkpoint holds optimiser states {', '.join(kinds)}, but {type(optimizer).__name__} keeps "
            f"{', '.join(sorted(expected)) or 'none'}; resume with the dense_optimizer of its config.yaml"
        )
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


_STATES = {
    "AdamW": {"step", "exp_avg", "exp_avg_sq"},
    "Adam": {"step", "exp_avg", "exp_avg_sq"},
    "SGD": {"momentum_buffer"},
    "Adagrad": {"step", "sum"},
}
