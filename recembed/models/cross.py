"""Cross layers: explicit feature interactions of rising degree.

Axes: ``B`` rows, ``W`` width, ``K`` experts, ``R`` rank.
"""

import torch
from torch import Tensor, nn

from recembed.errors import ConfigError

__all__ = ["CrossLayer", "CrossNetwork", "LowRankCrossLayer"]


class CrossLayer(nn.Module):
    """``x0 * (W x + b) + x``.

    Weights start Xavier normal, the bias at 0.

    Shapes:
        x0, x: ``[B, W]``. Returns float32 ``[B, W]``.

    Reference:
        Wang et al., DCN V2, WWW 2021.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """Cross once."""
        crossed: Tensor = self.linear(x)  # [B, W]
        return torch.addcmul(x, x0, crossed)  # [B, W]


class LowRankCrossLayer(nn.Module):
    """``x0 * (sum over experts of g_k(x) U_k h(C_k h(V_k' x)) + b) + x``, ``g`` a softmax gate.

    All experts are two large products and one small batched one. Weights start Xavier normal, the gate even, the bias
    at 0.

    Args:
        width: ``W``.
        rank: ``R``.
        experts: ``K``; one expert has no gate.
        activation: ``h``; None for tanh as in the paper.

    Shapes:
        x0, x: ``[B, W]``. Returns float32 ``[B, W]``.

    Reference:
        Wang et al., DCN V2, WWW 2021, section 3.3.
    """

    def __init__(self, width: int, *, rank: int, experts: int = 1, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.rank = rank
        self.experts = experts
        self.activation = nn.Tanh() if activation is None else activation
        self.down = nn.Parameter(torch.randn(width, experts * rank) * (2 / (width + rank)) ** 0.5)  # V
        self.core = nn.Parameter(torch.randn(experts, rank, rank) * rank**-0.5)  # C transposed
        self.up = nn.Parameter(torch.randn(experts * rank, width) * (2 / (width + rank)) ** 0.5)  # U transposed
        self.bias = nn.Parameter(torch.zeros(width))
        self.gate = nn.Parameter(torch.zeros(width, experts)) if experts > 1 else None

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """Cross once."""
        low: Tensor = self.activation(x @ self.down).unflatten(1, (self.experts, self.rank))  # [B, K, R]
        low = self.activation(torch.einsum("bkr,krs->bks", low, self.core))  # [B, K, R]
        if self.gate is not None:
            low = low * (x @ self.gate).softmax(dim=1)[:, :, None].to(low.dtype)  # [B, K, R]
        return torch.addcmul(x, x0, low.flatten(1) @ self.up + self.bias)  # [B, W]


class CrossNetwork(nn.Module):
    """Cross layers one after the other: ``L`` full-rank layers are a polynomial of degree ``L + 1`` in the input.

    Args:
        width: ``W``.
        layers: Cross layers, at least 1.
        rank: None for full-rank matrices, else the rank of the low-rank mixture.
        experts: Experts of the mixture.

    Shapes:
        x: float32 ``[B, W]``. Returns float32 ``[B, W]``.

    Raises:
        ConfigError: A number is below 1, or experts are asked for without a rank.
    """

    def __init__(self, width: int, *, layers: int, rank: int | None = None, experts: int = 1) -> None:
        super().__init__()
        for name, value in (("layers", layers), ("rank", 1 if rank is None else rank), ("experts", experts)):
            if value < 1:
                raise ConfigError(f"cross.{name} = {value}: expected at least 1")
        if rank is None and experts > 1:
            raise ConfigError(
                f"cross.experts = {experts} needs a rank: set cross.rank, for example {max(1, width // 4)}"
            )
        self.layers = nn.ModuleList(
            CrossLayer(width) if rank is None else LowRankCrossLayer(width, rank=rank, experts=experts)
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Cross."""
        x0 = x  # [B, W]
        for layer in self.layers:
            x = layer(x0, x)  # [B, W]
        return x
