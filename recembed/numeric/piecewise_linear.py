"""A field of a number by piecewise linear encoding over quantile bins."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.numeric.base import FieldConfig, NumericEncoder
from recembed.numeric.quantiles import quantile_edges
from recembed.schema.feature import Feature
from recembed.schema.fitted import NumericStats

__all__ = ["PiecewiseLinear", "PiecewiseLinearConfig"]


class PiecewiseLinearConfig(FieldConfig):
    """A field that is a piecewise linear function of the number.

    Attributes:
        num_bins: Bins with equal shares of the training rows; bins without width take no part.
    """

    kind: Literal["piecewise_linear"] = "piecewise_linear"
    num_bins: Annotated[int, Field(ge=1, le=256)] = 32

    def build(self, feature: Feature, stats: NumericStats, embedding_dim: int) -> "PiecewiseLinear":
        """Make the encoder."""
        edges = quantile_edges(stats, self.num_bins)
        return PiecewiseLinear(edges, embedding_dim=embedding_dim, init_std=self.init_std)


class PiecewiseLinear(NumericEncoder):
    """A linear layer on how far the number has got through each bin: 1 in bins below it, 0 in bins above.

    A missing number gives its missing vector instead. Weights start normal with variance
    ``2 init_std**2 / (w num_bins)``, missing vectors with ``init_std**2 / w``, the bias at 0.

    Args:
        edges: The ends of the bins, ascending.
        embedding_dim: ``D``.
        init_std: Root mean square of fresh vectors.

    Shapes:
        edges: float32 ``[w, num_bins + 1]``; x: float32 ``[B, w]``. Returns float32 ``[B, D]``.

    Reference:
        Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022 (PLE).
        Differs from the paper: outside the range of the training rows the encoding stays at its end value.
    """

    interacts = True
    edges: Tensor

    def __init__(self, edges: Tensor, *, embedding_dim: int, init_std: float) -> None:
        super().__init__()
        width, bins = edges.shape[0], edges.shape[1] - 1
        self.embedding_dim = embedding_dim
        self.register_buffer("edges", edges)
        self.weight = nn.Parameter(torch.randn(width * bins, embedding_dim) * init_std * (2 / (width * bins)) ** 0.5)
        self.missing = nn.Parameter(torch.randn(width, embedding_dim) * init_std * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(embedding_dim))

    def progress(self, x: Tensor) -> Tensor:
        """Return the encoding before the linear layer, ``[B, w, num_bins]``, each entry in 0 .. 1."""
        left, right = self.edges[:, :-1], self.edges[:, 1:]  # [w, T]
        x = x.clamp(self.edges[:, 0], self.edges[:, -1])  # [B, w], finite where not missing
        span = torch.where(right > left, right - left, torch.inf)  # [w, T], bins without width stay at 0
        inside = ((x[:, :, None] - left) / span).clamp(0.0, 1.0)  # [B, w, T]
        return torch.where(inside.isnan(), 0.0, inside)

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        missing = x.isnan().to(x.dtype)  # [B, w]
        progress = self.progress(x).flatten(1)  # [B, w * T]
        return (progress @ self.weight + missing @ self.missing).float() + self.bias  # [B, D]
