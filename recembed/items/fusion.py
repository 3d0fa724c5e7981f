"""Fusion: the streams of an item, some of them absent, as one vector.

Each fusion gets vectors ``[*S, M, D]`` (``concat``: a list of any widths), a mask ``[*S, M]`` with at least one stream per
item, and ``[*S, 1]`` how well the id is known. What stands in an absent stream never reaches the result.
Axes: ``*S`` any shape, ``M`` streams, ``D`` width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.tables.parameters import uniform_parameter

__all__ = ["FUSIONS", "AttentionFusion", "ConcatFusion", "Fuse", "Fusion", "GatedFusion", "SumFusion"]

Fuse = Literal["sum", "concat", "gated", "attention"]


class Fusion(nn.Module, ABC):
    """Streams to one vector.

    Args:
        name: Of the feature; fresh weights depend on it.
        widths: Of the streams.
        embedding_dim: Of the result.
        hidden: Width of a hidden layer, where there is one.
        std: Root mean square of the entries of fresh vectors.
        seed: Fresh weights depend on it.
    """

    def __init__(
        self, name: str, widths: Sequence[int], embedding_dim: int, *, hidden: int, std: float, seed: int
    ) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self._build(name, widths, hidden, std, seed)

    def _build(self, name: str, widths: Sequence[int], hidden: int, std: float, seed: int) -> None:
        """Make the parameters; by default none."""

    @abstractmethod
    def forward(self, streams: Sequence[Tensor], mask: Tensor, familiarity: Tensor) -> Tensor:
        """Fuse.

        Shapes:
            streams: ``M`` float32 ``[*S, w]``; mask: bool ``[*S, M]``; familiarity: float32 ``[*S, 1]``, 0 for an
            unknown id and about ``log`` of its training count else. Returns float32 ``[*S, D]``.
        """


class SumFusion(Fusion):
    """The sum of the streams that are there.

    >>> fuse = SumFusion("item", [1, 1], 1, hidden=0, std=1.0, seed=0)
    >>> streams = [torch.tensor([[2.0], [2.0]]), torch.tensor([[3.0], [float("nan")]])]
    >>> fuse(streams, torch.tensor([[True, True], [True, False]]), torch.zeros(2, 1)).tolist()
    [[5.0], [2.0]]
    """

    def forward(self, streams: Sequence[Tensor], mask: Tensor, familiarity: Tensor) -> Tensor:
        """Add up."""
        return _stacked(streams, mask).sum(-2)


class ConcatFusion(Fusion):
    """Streams side by side, an indicator of each, through a network of one hidden layer."""

    def _build(self, name: str, widths: Sequence[int], hidden: int, std: float, seed: int) -> None:
        inputs = sum(widths) + len(widths) + 1
        self.hidden = uniform_parameter((hidden, inputs), (2 / inputs) ** 0.5, name, "hidden", seed)
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.output = uniform_parameter((self.embedding_dim, hidden), std * hidden**-0.5, name, "output", seed)
        self.output_bias = nn.Parameter(torch.zeros(self.embedding_dim))

    def forward(self, streams: Sequence[Tensor], mask: Tensor, familiarity: Tensor) -> Tensor:
        """Run the network."""
        parts = [torch.where(mask[..., i, None], stream, 0.0) for i, stream in enumerate(streams)]
        inputs = torch.cat([*parts, mask.to(parts[0].dtype), familiarity], dim=-1)
        return F.linear(F.linear(inputs, self.hidden, self.hidden_bias).relu(), self.output, self.output_bias)


class GatedFusion(Fusion):
    """A mean of the streams, weighted per dimension.

    Gates are a softmax, over the streams that are there, of a linear reading of all streams, the mask and how well the id
    is known. They start equal, so that an item's vector starts as the mean of its streams.
    """

    def _build(self, name: str, widths: Sequence[int], hidden: int, std: float, seed: int) -> None:
        count = len(widths)
        self.weight = nn.Parameter(torch.zeros(count * self.embedding_dim, sum(widths) + count + 1))
        self.bias = nn.Parameter(torch.zeros(count * self.embedding_dim))
        self.scale = 1 / std  # streams enter the gates at about 1

    def forward(self, streams: Sequence[Tensor], mask: Tensor, familiarity: Tensor) -> Tensor:
        """Weigh and add."""
        stacked = _stacked(streams, mask)  # [*S, M, D]
        inputs = torch.cat([stacked.flatten(-2) * self.scale, mask.to(stacked.dtype), familiarity], dim=-1)
        gates = F.linear(inputs, self.weight, self.bias).view(stacked.shape)  # [*S, M, D]
        return (_softmax(gates, mask.unsqueeze(-1), -2) * stacked).sum(-2)


class AttentionFusion(Fusion):
    """A mean of the streams' values, weighted per stream: scaled dot products of a learned query with their keys."""

    def _build(self, name: str, widths: Sequence[int], hidden: int, std: float, seed: int) -> None:
        width, count = self.embedding_dim, len(widths)
        self.query = uniform_parameter((width,), 1.0, name, "query", seed)
        self.key = uniform_parameter((width, width), width**-0.5, name, "key", seed)
        self.value = nn.Parameter(torch.eye(width))
        self.kind = nn.Parameter(torch.zeros(count))
        self.trust = nn.Parameter(torch.zeros(count))
        self.scale = 1 / std

    def forward(self, streams: Sequence[Tensor], mask: Tensor, familiarity: Tensor) -> Tensor:
        """Attend."""
        stacked = _stacked(streams, mask)  # [*S, M, D]
        scores = F.linear(stacked * self.scale, self.key) @ self.query / self.embedding_dim**0.5  # [*S, M]
        scores = scores + self.kind + familiarity * self.trust
        weights = _softmax(scores, mask, -1)  # [*S, M]
        return F.linear((weights.unsqueeze(-1) * stacked).sum(-2), self.value)


def _stacked(streams: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return ``[*S, M, D]``, zero where a stream is absent."""
    return torch.where(mask.unsqueeze(-1), torch.stack(list(streams), dim=-2), 0.0)


def _softmax(scores: Tensor, mask: Tensor, dim: int) -> Tensor:
    return torch.softmax(torch.where(mask, scores, float("-inf")), dim=dim)


FUSIONS: dict[Fuse, type[Fusion]] = {
    "sum": SumFusion,
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "attention": AttentionFusion,
}
"""The fusions, by the word that names them."""
