"""Optimisers of the dense parameters; rows have their own rule (``recembed.rows``), applied in backward."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import nn
from torch.optim import Optimizer

__all__ = ["AnyDenseOptimizer", "DenseAdagrad", "DenseAdam", "DenseAdamW", "DenseOptimizer", "DenseSGD"]

_FUSED_DEVICES = ("cpu", "cuda")


class DenseOptimizer(BaseModel):
    """Settings of an optimiser of dense parameters.

    Attributes:
        learning_rate: Step size before the schedule's factor.
        weight_decay: Pull to zero on matrices; biases, scales and other vectors are left alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    def build(self, model: nn.Module) -> Optimizer | None:
        """Return the optimiser over ``model.parameters()``; None where nothing is trainable (rows are no parameters)."""
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trainable:
            return None
        groups = [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]
        fused = all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for p in trainable)
        return self._make([group for group in groups if group["params"]], fused or None)

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
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=betas, eps=self.eps, fused=fused)


class DenseAdam(DenseOptimizer):
    """Adam (Kingma and Ba, 2015); its weight decay is part of the gradient."""

    kind: Literal["adam"] = "adam"
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8

    def _make(self, groups: Sequence[dict[str, Any]], fused: bool | None) -> Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.Adam(groups, lr=self.learning_rate, betas=betas, eps=self.eps, fused=fused)


class DenseSGD(DenseOptimizer):
    """Stochastic gradient descent, with momentum if asked for."""

    kind: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def _make(self, groups: Sequence[dict[str, Any]], fused: bool | None) -> Optimizer:
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum, fused=fused)


class DenseAdagrad(DenseOptimizer):
    """Adagrad (Duchi et al., 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    eps: Annotated[float, Field(gt=0)] = 1e-10

    def _make(self, groups: Sequence[dict[str, Any]], fused: bool | None) -> Optimizer:
        return torch.optim.Adagrad(groups, lr=self.learning_rate, eps=self.eps)


def _with_kind(raw: Any) -> Any:
    if isinstance(raw, str):
        return {"kind": raw}
    return {"kind": "adamw", **raw} if isinstance(raw, dict) else raw


AnyDenseOptimizer = Annotated[
    Annotated[DenseAdamW | DenseAdam | DenseSGD | DenseAdagrad, Field(discriminator="kind")],
    BeforeValidator(_with_kind),
]
"""Any of the records above: one word, or a mapping whose ``kind`` is ``adamw`` unless it says otherwise."""
