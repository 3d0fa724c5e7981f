"""A field of a number by a small table with one row per quantile bucket."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recembed.numeric.base import FieldConfig, NumericEncoder
from recembed.numeric.quantiles import quantile_edges
from recembed.schema.feature import Feature
from recembed.schema.fitted import NumericStats

__all__ = ["Buckets", "BucketsConfig"]


class BucketsConfig(FieldConfig):
    """A field by a table over quantile buckets.

    Attributes:
        num_buckets: Buckets with equal shares of the training rows. A value that many rows share leaves some empty.
    """

    kind: Literal["buckets"] = "buckets"
    num_buckets: Annotated[int, Field(ge=2, le=256)] = 32

    def build(self, feature: Feature, stats: NumericStats, embedding_dim: int) -> "Buckets":
        """Make the encoder."""
        edges = quantile_edges(stats, self.num_buckets)[:, 1:-1]
        return Buckets(edges, embedding_dim=embedding_dim, init_std=self.init_std)


class Buckets(NumericEncoder):
    """The row of the bucket that the number falls into, summed over the numbers of the feature.

    Bucket ``i`` holds ``edges[i - 1] <= x < edges[i]``; the first and the last are open to infinity. The last row of
    a number's table is for missing. It is a dense parameter, trained with the model's. Rows start normal with
    variance ``init_std**2 / w``.

    Args:
        edges: The inner cut points, ascending.
        embedding_dim: ``D``.
        init_std: Standard deviation of fresh vectors.

    Shapes:
        edges: float32 ``[w, num_buckets - 1]``; x: float32 ``[B, w]``. Returns float32 ``[B, D]``.
    """

    interacts = True
    edges: Tensor
    first_row: Tensor

    def __init__(self, edges: Tensor, *, embedding_dim: int, init_std: float) -> None:
        super().__init__()
        width, buckets = edges.shape[0], edges.shape[1] + 1
        self.embedding_dim = embedding_dim
        self.num_buckets = buckets
        self.register_buffer("edges", edges.contiguous())
        self.register_buffer("first_row", torch.arange(width) * (buckets + 1))
        self.table = nn.Parameter(torch.randn(width * (buckets + 1), embedding_dim) * init_std * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Look up."""
        found = torch.searchsorted(self.edges, x.t().contiguous(), right=True).t()  # [B, w]
        rows = torch.where(x.isnan(), self.num_buckets, found) + self.first_row  # [B, w]
        return functional.embedding(rows, self.table).sum(dim=1)  # [B, D]
