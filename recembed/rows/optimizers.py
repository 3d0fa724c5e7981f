"""How a looked-up row moves: the optimisers that both row stores know, as records and as plain arithmetic.

Each rule sees the unique rows of a step and their summed gradients; rows that were not looked up never move, but under
``Adam(lazy=False)``.
Axes: ``U`` unique rows, ``D`` width.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor
from torch.optim.adam import adam

__all__ = ["SGD", "Adagrad", "Adam", "AnyRowOptimizer", "RowOptimizer", "RowWiseAdagrad"]


class RowOptimizer(BaseModel):
    """A row update rule.

    Attributes:
        learning_rate: Step size.
        weight_decay: L2 of every row, looked up or not, in every step: the gradient of each row gains
            ``weight_decay * row`` (see ``rows.weight_decay`` for when it is paid).
        states: Name of each state of the rule and whether it holds a vector (``D`` numbers) a row, or one number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    states: ClassVar[dict[str, bool]] = {}
    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    def step(self, rows: Tensor, gradient: Tensor, states: dict[str, Tensor], learning_rate: float) -> Tensor:
        """Return the new rows ``[U, D]`` and write the new states in place.

        Shapes:
            rows, gradient: float32 ``[U, D]``; states: float32 ``[U, D]`` or ``[U]`` by name.
        """
        raise NotImplementedError

    def step_size(self, states: Mapping[str, Tensor]) -> Tensor | float:
        """Return what a gradient is multiplied by beside the learning rate, ``[U, 1]`` or ``[U, D]``.

        0 for rows that no step has moved, where the states tell them.
        """
        raise NotImplementedError

    @property
    def moves_every_row(self) -> bool:
        """Whether a step moves rows that were not looked up: it is given all rows, with gradients of zero for these.

        It then changes them in place.
        """
        return False

    def state_width(self, state: str, embedding_dim: int) -> int:
        """Return how many numbers ``state`` keeps for a row."""
        return embedding_dim if self.states[state] else 1


class SGD(RowOptimizer):
    """``w -= lr * g``."""

    kind: Literal["sgd"] = "sgd"

    def step(self, rows: Tensor, gradient: Tensor, states: dict[str, Tensor], learning_rate: float) -> Tensor:
        """Return ``rows - lr * gradient``."""
        return rows - learning_rate * gradient

    def step_size(self, states: Mapping[str, Tensor]) -> float:
        """Return 1."""
        return 1.0


class Adagrad(RowOptimizer):
    """Adagrad with one accumulator per number (Duchi et al., 2011): ``s += g**2; w -= lr * g / (sqrt(s) + eps)``."""

    states: ClassVar[dict[str, bool]] = {"sum": True}
    kind: Literal["adagrad"] = "adagrad"
    eps: Annotated[float, Field(gt=0)] = 1e-8

    def step(self, rows: Tensor, gradient: Tensor, states: dict[str, Tensor], learning_rate: float) -> Tensor:
        """Return the new rows."""
        states["sum"] += gradient.square()
        return rows - learning_rate * gradient / (states["sum"].sqrt() + self.eps)

    def step_size(self, states: Mapping[str, Tensor]) -> Tensor:
        """Return ``1 / (sqrt(s) + eps)``."""
        return _inverse(states["sum"].sqrt(), self.eps)


class RowWiseAdagrad(RowOptimizer):
    """Adagrad with one accumulator per row: ``s += mean(g**2); w -= lr * g / (sqrt(s) + eps)``.

    The same rule as FBGEMM's ``EXACT_ROWWISE_ADAGRAD``: a sixteenth of Adagrad's state at width 16.
    """

    states: ClassVar[dict[str, bool]] = {"sum": False}
    kind: Literal["row_wise_adagrad"] = "row_wise_adagrad"
    eps: Annotated[float, Field(gt=0)] = 1e-8

    def step(self, rows: Tensor, gradient: Tensor, states: dict[str, Tensor], learning_rate: float) -> Tensor:
        """Return the new rows."""
        states["sum"] += gradient.square().mean(dim=1)
        return rows - learning_rate * gradient / (states["sum"].sqrt() + self.eps).unsqueeze(1)

    def step_size(self, states: Mapping[str, Tensor]) -> Tensor:
        """Return ``1 / (sqrt(s) + eps)``."""
        return _inverse(states["sum"].sqrt(), self.eps).unsqueeze(1)


class Adam(RowOptimizer):
    """Adam on the rows of a step (Kingma and Ba, 2015); moments of other rows stand still, as in ``SparseAdam``.

    The bias correction counts the steps of each row (one number a row), not those of the run: a row met
    for the first time takes a full first step however late it comes. That is the one difference to ``SparseAdam``.

    Attributes:
        lazy: False moves every row in every step, exactly as ``torch.optim.Adam`` moves a parameter, weight decay
            included. The work then grows with the table: for tables that fit the cache, and for comparisons with models
            trained so. Row store ``torch``, one process.
    """

    states: ClassVar[dict[str, bool]] = {"step": False, "exp_avg": True, "exp_avg_sq": True}
    kind: Literal["adam"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8
    lazy: bool = True

    @property
    def moves_every_row(self) -> bool:
        """Whether a step moves rows that were not looked up."""
        return not self.lazy

    def step(self, rows: Tensor, gradient: Tensor, states: dict[str, Tensor], learning_rate: float) -> Tensor:
        """Return the new rows, which are ``rows`` changed in place."""
        if not self.lazy:
            return self._step_of_whole_table(rows, gradient, states, learning_rate)
        step = states["step"].add_(1).unsqueeze(1)  # [U, 1]
        mean = states["exp_avg"].lerp_(gradient, 1 - self.beta1)
        square = states["exp_avg_sq"].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        root = (square / (1 - torch.pow(self.beta2, step))).sqrt_().add_(self.eps)
        sizes = learning_rate / (1 - torch.pow(self.beta1, step))  # [U, 1]
        return rows.sub_(root.reciprocal_().mul_(mean).mul_(sizes))

    def _step_of_whole_table(
        self, rows: Tensor, gradient: Tensor, states: dict[str, Tensor], learning_rate: float
    ) -> Tensor:
        step = states["step"][0].clone()  # every row has taken as many
        adam(
            [rows],
            [gradient],
            [states["exp_avg"]],
            [states["exp_avg_sq"]],
            [],
            [step],
            fused=True,
            amsgrad=False,
            beta1=self.beta1,
            beta2=self.beta2,
            lr=learning_rate,
            weight_decay=self.weight_decay,
            eps=self.eps,
            maximize=False,
        )
        states["step"].copy_(step.expand_as(states["step"]))
        return rows

    def step_size(self, states: Mapping[str, Tensor]) -> Tensor:
        """Return ``1 / (sqrt(v) + eps)`` with the second moment as the next step corrects it."""
        step = states["step"].unsqueeze(1).clamp(min=1)
        return _inverse((states["exp_avg_sq"] / (1 - torch.pow(self.beta2, step))).sqrt(), self.eps)


def _inverse(root: Tensor, eps: float) -> Tensor:
    return torch.where(root > 0, 1 / (root + eps), 0.0)


def _with_kind(raw: Any) -> Any:
    if isinstance(raw, str):
        return {"kind": raw}
    return {"kind": "row_wise_adagrad", **raw} if isinstance(raw, dict) else raw


AnyRowOptimizer = Annotated[
    Annotated[SGD | Adagrad | RowWiseAdagrad | Adam, Field(discriminator="kind")], BeforeValidator(_with_kind)
]
"""A row rule in a config: one word, or a mapping whose ``kind`` is row-wise Adagrad where it is left out."""
