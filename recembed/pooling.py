"""Vectors of a jagged feature → one vector per row, or a padded sequence with its mask.

Axes: ``B`` rows, ``N`` vectors of the batch, ``D`` width, ``L`` padded length. Row ``b`` owns the vectors
``offsets[b] .. offsets[b + 1] - 1``. Only plain operations of torch: ``torch.export`` takes both functions with any
``N`` and ``B`` (``pad`` with a fixed ``max_length``).
"""

from typing import Literal

import torch
from torch import Tensor

from recembed.embedded import PaddedSequence
from recembed.errors import ConfigError, did_you_mean

__all__ = ["Pooling", "pad", "pool"]

Pooling = Literal["sum", "mean", "max"]


def _rows(vectors: Tensor, offsets: Tensor) -> Tensor:
    positions = torch.arange(vectors.shape[0], device=offsets.device)  # [N]
    return torch.searchsorted(offsets, positions, right=True) - 1  # [N], the row that owns each vector


def pool(vectors: Tensor, offsets: Tensor, mode: Pooling, weights: Tensor | None = None) -> Tensor:
    """Pool the vectors of each row; a row without vectors becomes zeros.

    Args:
        vectors: The vectors of all rows, one after the other.
        offsets: Where each row begins; the last entry is ``N``.
        mode: ``sum``, ``mean`` or ``max``.
        weights: Multiply ``sum``; ``mean`` becomes ``sum(w v) / sum(w)``, and zeros where ``sum(w)`` is 0.

    Shapes:
        vectors: float32 ``[N, D]``; offsets: int64 ``[B + 1]``; weights: float32 ``[N]``. Returns float32 ``[B, D]``.

    Raises:
        ConfigError: ``mode`` is unknown, or ``max`` is given weights.

    >>> pool(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 2, 2, 3]), "mean").tolist()
    [[2.0], [0.0], [5.0]]
    """
    if mode not in ("sum", "mean", "max"):
        raise ConfigError(f"pooling = {mode!r} is unknown" + did_you_mean(mode, ("sum", "mean", "max")))
    rows = _rows(vectors, offsets)  # [N]
    zeros = vectors.new_zeros(offsets.shape[0] - 1, vectors.shape[1])  # [B, D]
    if mode == "max":
        if weights is not None:
            raise ConfigError("pooling = 'max' cannot use weights: choose 'sum' or 'mean', or leave the weights out")
        return zeros.scatter_reduce(0, rows[:, None].expand_as(vectors), vectors, "amax", include_self=False)
    if weights is not None:
        vectors = vectors * weights[:, None]  # [N, D]
    sums = zeros.index_add(0, rows, vectors)  # [B, D]
    if mode == "sum":
        return sums
    if weights is None:
        totals = (offsets[1:] - offsets[:-1]).to(sums.dtype)  # [B]
    else:
        totals = weights.new_zeros(offsets.shape[0] - 1).index_add(0, rows, weights)  # [B]
    nothing = totals == 0
    means = sums / torch.where(nothing, 1.0, totals)[:, None]  # [B, D]
    return torch.where(nothing[:, None], 0.0, means)


def pad(vectors: Tensor, offsets: Tensor, max_length: int | None = None) -> PaddedSequence:
    """Lay the vectors of each row in order from place 0 on, zeros behind them.

    Args:
        vectors: The vectors of all rows, one after the other.
        offsets: Where each row begins; the last entry is ``N``.
        max_length: ``L``; a longer row keeps its last ``max_length`` vectors. None takes the longest row of the
            batch, which makes a GPU wait.

    Shapes:
        vectors: float32 ``[N, D]``; offsets: int64 ``[B + 1]``. Returns values ``[B, L, D]`` and mask ``[B, L]``.

    Raises:
        ConfigError: ``max_length`` is below 1.

    >>> padded = pad(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 3, 3]), max_length=2)
    >>> padded.values.tolist(), padded.mask.tolist()
    ([[[2.0], [3.0]], [[0.0], [0.0]]], [[True, True], [False, False]])
    """
    if max_length is not None and max_length < 1:
        raise ConfigError(f"max_length = {max_length}: expected at least 1, or none for the longest row of a batch")
    batch, width = offsets.shape[0] - 1, vectors.shape[1]
    lengths = offsets[1:] - offsets[:-1]  # [B]
    length = max_length if max_length is not None else (int(lengths.max()) if batch else 0)
    rows = _rows(vectors, offsets)  # [N]
    from_end = offsets[1:][rows] - torch.arange(vectors.shape[0], device=offsets.device)  # [N], 1 at the last vector
    places = lengths.clamp(max=length)[rows] - from_end  # [N], negative where dropped
    spare = batch * length  # one more place, for the dropped vectors
    targets = torch.where(places >= 0, rows * length + places, spare)  # [N]
    values = vectors.new_zeros(spare + 1, width).index_copy(0, targets, vectors)[:-1]  # [B * L, D]
    mask = torch.arange(length, device=offsets.device) < lengths[:, None]  # [B, L]
    return PaddedSequence(values.view(batch, length, width), mask)
