"""``deeplight``: the smallest weights are set to zero again and again while the table trains, ever more of them.

Deng et al., DeepLight: Deep Lightweight Feature Interactions for Accelerating CTR Predictions in Ad Serving, WSDM
2021, its pruning of the embedding table. Differs from the paper: weights are ranked within a feature, not over all
features; the schedule is ten times as fast by default (paper: ``period`` 100, for runs of tens of thousands of steps);
``settle`` takes the last step to the target and fixes the mask, and the table may then be tuned under it.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.rows import RowStore
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.held_rows import held_bytes
from recembed.tables.masked import MaskedTable, affordable_weights, keep_largest
from recembed.tables.pruned_weights import pruned_bytes
from recembed.tables.spec import TableSpec

__all__ = ["DeepLightConfig", "DeepLightTable"]


class DeepLightConfig(TableConfig):
    """After ``t`` steps past the warm-up a share ``S * (1 - decay ** (t / period))`` of the weights is zero.

    ``S`` is the target sparsity; what was set to zero may grow again until it is pruned anew. Every ``every`` steps the
    work is one pass over the table. Bytes served: ``pruned_weights``; while training ``5 * num_embeddings *
    embedding_dim`` (rows and mask). First-order weights are pruned alike.

    Attributes:
        ratio: Served bytes as a share of the exact table's (0.25 if ``sparsity`` is not given), at least one weight;
            sets the target.
        sparsity: The target itself: share of the weights that end as zero.
        warm_up: Steps before the first pruning.
        every: Steps between prunings.
        decay, period: Speed of the schedule.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: a feature has no vocabulary.

    >>> table = DeepLightConfig(ratio=0.1).build([TableSpec("item", 1000, 16)], seed=0)["item"]
    >>> table.weights, table.served_rows
    (878, {'item': 6396})
    """

    kind: Literal["deeplight"] = "deeplight"
    sized_by: ClassVar[str] = "sparsity"
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    warm_up: Annotated[int, Field(ge=0)] = 100
    every: Annotated[int, Field(ge=1)] = 10
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    period: Annotated[float, Field(gt=0)] = 10.0
    exact_below: Annotated[int, Field(ge=0)] = 100
    recipe: ClassVar[tuple[dict[str, Any], ...]] = (
        {"name": "prune", "do": "train", "weights": "last"},
        {"name": "settle", "do": "settle"},
        {"name": "tune", "do": "train", "start": "keep"},
    )

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec) for spec in specs}

    def _build_one(self, spec: TableSpec) -> Table:
        ids, width = spec.known_ids(self.kind), spec.embedding_dim
        if ids <= self.exact_below:
            return FullTable.of(spec)
        if self.sparsity is None:
            weights = affordable_weights(spec, 0.25 if self.ratio is None else self.ratio)
        else:
            weights = max(1, round((1 - self.sparsity) * ids * width))
        if pruned_bytes(weights, ids, width, spec.served_dtype) >= held_bytes(ids, width, spec.served_dtype):
            return FullTable.of(spec)
        return DeepLightTable(spec, weights, self.warm_up, self.every, self.decay, self.period)


class DeepLightTable(MaskedTable):
    """Rows whose smallest weights become zero every few steps; then rows under a fixed mask.

    Args:
        spec: The feature.
        weights: Weights that stay in the end.
        warm_up: Steps before the first pruning.
        every: Steps between prunings.
        decay: Base of the schedule.
        period: Its steps per factor ``decay``.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    moves_rows = True

    def __init__(self, spec: TableSpec, weights: int, warm_up: int, every: int, decay: float, period: float) -> None:
        super().__init__(spec, weights)
        self.target = weights
        self.warm_up = warm_up
        self.every = every
        self.decay = decay
        self.period = period
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def sparsity_at(self, step: int) -> float:
        """Return the share of weights that is zero after the pruning of a step, counted from 0.

        >>> table = DeepLightTable(TableSpec("item", 10, 8), 8, warm_up=5, every=5, decay=0.5, period=10)
        >>> table.sparsity_at(5), table.sparsity_at(15), table.sparsity_at(10_000)
        (0.0, 0.45, 0.9)
        """
        past = max(step - self.warm_up, 0)
        target = 1 - self.target / self.get_buffer("mask").numel()
        return float(target * (1 - self.decay ** (past / self.period)))

    def before_lookup(self, store: RowStore, ids: Tensor) -> None:
        """Count the step, and set the smallest weights to zero where it is one of those that prune."""
        if bool(self.get_buffer("settled")):
            return
        step = int(self.get_buffer("steps"))
        self.get_buffer("steps").add_(1)
        if step < self.warm_up or (step - self.warm_up) % self.every:
            return
        rows = store.read_rows(self.slots[0].name)
        keep = keep_largest(rows.abs(), round((1 - self.sparsity_at(step)) * rows.numel()))
        store.write_rows(self.slots[0].name, rows.masked_fill_(~keep, 0.0))
