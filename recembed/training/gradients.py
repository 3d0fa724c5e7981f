"""Gradients: of dense parameters, summed over processes in one message with statistics of batches; and of streams, told."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from recembed.rows import Processes
from recembed.rows.piece import is_part

__all__ = ["TellsGradients", "batch_statistics", "gradient_norm", "stream_gradients", "sum_gradients"]


def batch_statistics(model: nn.Module) -> list[Tensor]:
    """Return what batch normalisation keeps of the batches so far, which is of this process's rows alone."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [values for norm in norms for values in (norm.running_mean, norm.running_var) if values is not None]


@torch.no_grad()
def sum_gradients(processes: Processes, parameters: Sequence[nn.Parameter], means: Sequence[Tensor] = ()) -> None:
    """Replace each gradient by the sum over all processes, each weighed by its share of the rows; ``means`` likewise.

    A parameter that no process has a gradient of keeps none. The gradient of one held in part is a sum already.
    """
    if processes.count == 1:
        return
    for parameter in parameters:
        if is_part(parameter) and parameter.grad is not None:
            parameter.grad *= processes.share
    parameters = [parameter for parameter in parameters if not is_part(parameter)]
    if not (parameters or means):
        return
    device = (parameters[0] if parameters else means[0]).device
    there = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    weighed = [values.flatten().float() * processes.share for values in (*gradients, *means)]
    summed = processes.total(torch.cat([there, *weighed]))
    parts = torch.split(summed, [len(there), *(len(values) for values in weighed)])
    for parameter, any_, part in zip(parameters, parts[0].tolist(), parts[1:], strict=False):
        parameter.grad = part.view_as(parameter).to(parameter.dtype) if any_ else None
    for values, part in zip(means, parts[1 + len(parameters) :], strict=True):
        values.copy_(part.view_as(values))


@torch.no_grad()
def gradient_norm(processes: Processes, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together; of parameters held in part, over all processes."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None and not is_part(p)], foreach=True)
    if parts := [p.grad for p in parameters if p.grad is not None and is_part(p)]:
        others = processes.total(nn.utils.get_total_norm(parts, foreach=True).square())
        norm = (norm.square() + others).sqrt()
    return norm


@runtime_checkable
class TellsGradients(Protocol):
    """A module that fuses several streams into one vector and knows how large the gradient of each is."""

    def gradient_norms(self) -> dict[str, float]:
        """Return the norm of all gradients since the last call, by stream."""


def stream_gradients(model: nn.Module, steps: int) -> dict[str, float]:
    """Return ``train/gradient_norm/TABLE/STREAM``, the root mean square over ``steps`` of this process's gradients.

    Empty where no module tells any.
    """
    told = [module.gradient_norms() for module in model.modules() if isinstance(module, TellsGradients)]
    return {f"train/gradient_norm/{name}": norm / steps**0.5 for norms in told for name, norm in norms.items()}
