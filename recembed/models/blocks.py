"""The blocks that models are made of.

Axes: ``B`` rows, ``F`` fields, ``D`` width of a field.

Under bf16 autocast the matrix products run in bf16 and the sums of ``FirstOrder`` and ``factorization_machine`` in
float32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.embedded import Embedded
from recembed.errors import ConfigError, did_you_mean

__all__ = [
    "MLP",
    "Activation",
    "Dropout",
    "FirstOrder",
    "Units",
    "factorization_machine",
    "fields_and_pairs",
    "output_layer",
]

Activation = Literal["relu", "gelu", "silu", "tanh"]
Units = tuple[Annotated[int, Field(ge=1)], ...]
Dropout = Annotated[float, Field(ge=0, lt=1)]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Sequential):
    """Hidden layers, each linear, batch norm if asked for, activation, dropout.

    Weights start normal with variance ``2 / inputs`` (He et al. 2015), for tanh ``2 / (inputs + outputs)`` (Glorot and
    Bengio 2010); biases at 0. Without hidden layers it is the identity. Batch norm cannot train on a batch of one row.

    Args:
        in_width: Width of the input.
        hidden_units: Widths of the layers.
        activation: ``relu``, ``gelu``, ``silu`` or ``tanh``.
        dropout: Share of outputs set to 0 in training.
        batch_norm: Normalise before the activation.

    Attributes:
        out_width: Width of the output.

    Shapes:
        x: ``[B, in_width]``. Returns ``[B, out_width]``.

    Raises:
        ConfigError: A width is below 1, ``dropout`` is outside ``0 .. 1`` or ``activation`` is unknown.

    >>> MLP(5, hidden_units=(4, 3))(torch.zeros(2, 5)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        in_width: int,
        *,
        hidden_units: Sequence[int],
        activation: Activation = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        widths = [in_width, *hidden_units]
        if min(widths) < 1:
            raise ConfigError(f"the input and the hidden layers of an MLP are {widths} wide: expected at least 1 each")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout = {dropout}: expected 0 or more and less than 1")
        if activation not in _ACTIVATIONS:
            raise ConfigError(f"activation = {activation!r} is unknown" + did_you_mean(activation, _ACTIVATIONS))
        layers: list[nn.Module] = []
        for width, units in pairwise(widths):
            linear = nn.Linear(width, units)
            if activation == "tanh":
                nn.init.xavier_normal_(linear.weight)
            else:
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers.append(linear)
            if batch_norm:
                layers.append(nn.BatchNorm1d(units))
            layers.append(_ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers)
        self.out_width = widths[-1]


def output_layer(in_width: int) -> nn.Linear:
    """Return the layer that ends in one logit: weights normal with variance ``2 / (in_width + 1)``, bias 0."""
    layer = nn.Linear(in_width, 1)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class FirstOrder(nn.Module):
    """The linear part: the sum of the first-order weights of the ids, a weight per dense column, and a bias.

    Weights and bias start at 0.

    Shapes:
        embedded: with ``linear``. Returns float32 ``[B]``.
    """

    def __init__(self, dense_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dense_width)) if dense_width else None
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, embedded: Embedded) -> Tensor:
        """Add up."""
        if embedded.linear is None:
            raise ConfigError("the embedding gave no first-order weights: build it with linear=True")
        logits = embedded.linear.float() + self.bias  # [B]
        if self.weight is None:
            return logits
        return logits + (embedded.dense.float() * self.weight).sum(dim=1)  # [B]


def factorization_machine(vectors: Tensor) -> Tensor:
    """Return the sum of the dot products of all pairs of fields, in time ``F D``.

    ``sum over i < j of <x_i, x_j> = (|sum of x_i|^2 - sum of |x_i|^2) / 2``, in float32.

    Shapes:
        vectors: ``[B, F, D]``. Returns float32 ``[B]``.

    Reference:
        Rendle, Factorization Machines, ICDM 2010.

    >>> factorization_machine(torch.tensor([[[1.0, 0.0], [2.0, 1.0], [3.0, 1.0]]]))
    tensor([12.])
    """
    vectors = vectors.float()
    if torch.is_grad_enabled() and vectors.requires_grad:
        pairs: Tensor = _Pairs.apply(vectors)  # type: ignore[no-untyped-call]
        return pairs
    return _pairs(vectors, vectors.sum(dim=1))


def fields_and_pairs(embedded: Embedded) -> tuple[Tensor, Tensor]:
    """Return ``embedded.concat()`` and the ``factorization_machine`` of its fields, with one gradient for both.

    Shapes:
        embedded: fields of one width. Returns ``[B, F * D + W]`` and float32 ``[B]``.
    """
    vectors = embedded.fields.stack()  # [B, F, D]
    if torch.is_grad_enabled() and vectors.requires_grad and vectors.dtype == embedded.dense.dtype == torch.float32:
        both: tuple[Tensor, Tensor] = _FieldsAndPairs.apply(vectors, embedded.dense)  # type: ignore[no-untyped-call]
        return both
    return embedded.concat(), factorization_machine(vectors)


def _pairs(vectors: Tensor, total: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors.flatten(1), dim=1)  # [B], without a square of every number
    squares = norms.square()
    return 0.5 * (total.square().sum(dim=1) - squares)  # [B]


def _pairs_gradient(vectors: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
    """Return ``[B, F, D]``: of a field the sum of the others, in two passes over the vectors."""
    own: Tensor = vectors * -gradient.view(-1, 1, 1)
    return own.add_((total * gradient.unsqueeze(1)).unsqueeze(1))


class _Pairs(torch.autograd.Function):
    """Pairs, with their gradient in two passes where autograd takes five."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        total = vectors.sum(dim=1)  # [B, D]
        ctx.save_for_backward(vectors, total)
        return _pairs(vectors, total)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        vectors, total = ctx.saved_tensors
        return _pairs_gradient(vectors, total, gradient)


class _FieldsAndPairs(torch.autograd.Function):
    """Fields beside dense numbers, and pairs: their gradients are added as they are computed, not once they are there."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        total = vectors.sum(dim=1)  # [B, D]
        ctx.save_for_backward(vectors, total)
        return torch.cat([vectors.flatten(1), dense], dim=1), _pairs(vectors, total)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, side: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        vectors, total = ctx.saved_tensors
        width = vectors.shape[1] * vectors.shape[2]
        own = _pairs_gradient(vectors, total, gradient).add_(side[:, :width].view_as(vectors))  # [B, F, D]
        return own, side[:, width:]
