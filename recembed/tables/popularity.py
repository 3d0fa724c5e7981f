"""Ids in order of popularity: what the methods that treat frequent ids better have in common."""

import numpy as np
import torch
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.tables.spec import TableSpec

__all__ = ["PopularityRank", "popularity_order"]


def popularity_order(spec: TableSpec, kind: str) -> np.ndarray:
    """Return the ids of a feature, reserved ones first, then by falling training count: int64 ``[num_embeddings]``.

    Raises:
        ConfigError: the spec has no counts; ``kind`` is the method that asks.

    >>> popularity_order(TableSpec("item", 4, 8, counts=np.array([0, 3, 1, 5]), reserved_ids=1), "adaptive").tolist()
    [0, 3, 1, 2]
    """
    if spec.counts is None:
        raise ConfigError(
            f"feature {spec.name!r}: table {kind!r} needs the training count of every id, and there is none; "
            "fit the schema on training rows, or choose a table that needs no counts, such as 'multiplexed'"
        )
    known = np.argsort(-spec.counts[spec.reserved_ids :], kind="stable")
    return np.concatenate([np.arange(spec.reserved_ids), spec.reserved_ids + known])


class PopularityRank(nn.Module):
    """Rank of every id in a ``popularity_order``.

    A fresh vocabulary lies in this order, so the rank is the id and nothing is stored. One that has grown does not:
    then the ranks are a buffer, int32 ``[num_embeddings]``, part of the checkpoint and of the bytes served.

    >>> PopularityRank(np.array([0, 3, 1, 2]))(torch.tensor([[3, 1], [2, 0]])).tolist()
    [[1, 2], [3, 0]]
    """

    def __init__(self, order: np.ndarray) -> None:
        super().__init__()
        ranks: Tensor | None = None
        if (order != np.arange(len(order))).any():
            ranks = torch.tensor(np.argsort(order).astype(np.int32))
        self.register_buffer("ranks", ranks)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rank of each id, int64 of the same shape."""
        return ids if self._buffers["ranks"] is None else self.get_buffer("ranks")[ids].long()
