"""Optimisers of the dense parameters; rows have their own rule (``recembed.rows``), applied in backward.

A parameter with an attribute ``learning_rate_factor`` moves at that share of the learning rate.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import nn
from torch.optim import Optimizer

from recembed.training.eager import eager

__all__ = ["AnyDenseOptimizer", "DenseAdagrad", "DenseAdam", "DenseAdamW", "DenseOptimizer", "DenseSGD"]

_FUSED_DEVICES = ("cpu", "cuda")
_FACTOR = "learning_rate_factor"


class DenseOptimizer(BaseModel):
    """Settings of an optimiser of dense parameters.

    Attributes:
        learning_rate: Step size before the schedule's factor.
        weight_decay: Pull to zero on matrices; biases, scales and other vectors are left alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer | None:
        """Return the optimiser over the parameters that are trainable; None where there are none.

        Equal ``learning_rate_factor`` make a group, of matrices or of vectors; its factor stands in the group.
        """
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in sorted(trainable, key=lambda p: p.ndim <= 1):  # matrices first
            key = (float(getattr(parameter, _FACTOR, 1.0)), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
        if not groups:
            return None
        fused = all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for p in trainable)
        optimizer = self._make(
            [
                {"params": members, "weight_decay": self.weight_decay if matrices else 0.0, _FACTOR: factor}
                for (factor, matrices), members in groups.items()
            ],
            fused or None,
        )
        self.set_learning_rates(optimizer, 1.0)
        return optimizer

    def set_learning_rates(self, optimizer: Optimizer, factor: float) -> None:
        """Set every group of ``optimizer`` to ``factor`` times the learning rate, times the group's own factor."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * factor * group[_FACTOR]

    def _make(self, groups: Sequence[dict[str, Any]], fused: bool | None) -> Optimizer:
        raise NotImplementedError


class DenseAdamW(DenseOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    kind: Literal["adamw"] = "adamw"
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8

    def _make(self, groups: Sequence[dict[str, Any]], fused: bool | None) -> Optimizer:
        betas = (self.beta1, self.beta2)
        return eager(torch.optim.AdamW)(groups, lr=self.learning_rate, betas=betas, eps=self.eps, fused=fused)


class DenseAdam(DenseOptimizer):
    """Adam (Kingma and Ba, 2015); its weight decay is part of the gradient."""

    kind: Literal["adam"] = "adam"
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8

    def _make(self, groups: Sequence[dict[str, Any]], fused: bool | None) -> Optimizer:
        betas = (self.beta1, self.beta2)
        return eager(torch.optim.Adam)(groups, lr=self.learning_rate, betas=betas, eps=self.eps, fused=fused)


class DenseSGD(DenseOptimizer):
    """Stochastic gradient descent, with momentum if asked for."""

    kind: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def _make(self, groups: Sequence[dict[str, Any]], fused: bool | None) -> Optimizer:
        return eager(torch.optim.SGD)(groups, lr=self.learning_rate, momentum=self.momentum, fused=fused)


class DenseAdagrad(DenseOptimizer):
    """Adagrad (Duchi et al., 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    eps: Annotated[float, Field(gt=0)] = 1e-10

    def _make(self, groups: Sequence[dict[str, Any]], fused: bool | None) -> Optimizer:
        return eager(torch.optim.Adagrad)(groups, lr=self.learning_rate, eps=self.eps)


def _with_kind(raw: Any) -> Any:
    if isinstance(raw, str):
        return {"kind": raw}
    return {"kind": "adamw", **raw} if isinstance(raw, dict) else raw


AnyDenseOptimizer = Annotated[
    Annotated[DenseAdamW | DenseAdam | DenseSGD | DenseAdagrad, Field(discriminator="kind")],
    BeforeValidator(_with_kind),
]
"""Any of the records above: one word, or a mapping whose ``kind`` is ``adamw`` unless it says otherwise."""
