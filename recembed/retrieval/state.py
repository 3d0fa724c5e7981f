"""How far a retrieval training has come, in memory and on disk."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recembed.errors import CheckpointError
from recembed.retrieval.adam import Adam

__all__ = ["RetrievalState", "load_state", "load_weights", "save_state"]

_ADAM = "optimizer/"


@dataclass
class RetrievalState:
    """Progress of a training.

    Attributes:
        epoch: Epochs done.
        step: Steps done.
        waited: Evaluations since the best one.
        best_epoch, best_value: The best evaluation, 0 epochs where there was none.
        seconds: Wall clock of training steps; evaluation and files are left out.
        cpu_seconds: Processor time of the same.
        total_seconds: Wall clock of all.
        history: One record per evaluation.
    """

    epoch: int = 0
    step: int = 0
    waited: int = 0
    best_epoch: int = 0
    best_value: float = float("-inf")
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    total_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_state(path: Path, model: nn.Module, state: RetrievalState, optimizer: Adam | None) -> None:
    """Write a checkpoint, one file, whole or not at all; without an optimiser it holds weights only.

    Raises:
        CheckpointError: the place cannot be written; what was there before is whole.
    """
    tensors = _weights(model)
    if optimizer is not None:
        tensors |= _moments(model, optimizer)
    beside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: values.contiguous() for name, values in tensors.items()},
            beside,
            {"state": json.dumps(asdict(state))},
        )
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write checkpoint {path} ({error}); free some space or name another folder"
        ) from error


def load_state(path: Path, model: nn.Module, optimizer: Adam) -> RetrievalState | None:
    """Go back to a checkpoint; None where there is none.

    Raises:
        CheckpointError: it is damaged, or of another model.
    """
    if not path.is_file():
        return None
    return _load(path, _weights(model) | _moments(model, optimizer))


def load_weights(path: Path, model: nn.Module) -> RetrievalState:
    """Copy the weights of a checkpoint into ``model``.

    Raises:
        CheckpointError: it is missing, damaged, or of another model.
    """
    return _load(path, _weights(model))


@torch.no_grad()
def _load(path: Path, live: dict[str, Tensor]) -> RetrievalState:
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            shapes = {name: list(values.shape) for name, values in live.items()}
            if not live.keys() <= names or any(file.get_slice(n).get_shape() != shape for n, shape in shapes.items()):
                raise CheckpointError(
                    f"checkpoint {path} is of another model or graph; build the model as in config.yaml, or start anew "
                    "with --overwrite"
                )
            for name, values in live.items():
                values.copy_(file.get_tensor(name))
            return RetrievalState(**json.loads(file.metadata()["state"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint {path} is missing or damaged ({error}); start anew with --overwrite"
        ) from None


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: values.detach() for name, values in model.state_dict().items() if _is_saved(name)}


def _moments(model: nn.Module, optimizer: Adam) -> dict[str, Tensor]:
    return {
        f"{_ADAM}{name}/{key}": value
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if _is_saved(name)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _is_saved(name: str) -> bool:
    """Tell tensors of the model from what a step keeps beside them under a private name."""
    return not name.rpartition(".")[2].startswith("_")
