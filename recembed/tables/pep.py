"""``pep``: a learned threshold pulls every weight to zero, and those that it reaches are pruned.

Liu et al., Learnable Embedding Sizes for Recommender Systems, ICLR 2021. Differs from the paper: the global threshold
is one per feature; thresholds start higher (paper: -15, where their gradient is 3e-7 of a weight's); a run has a fixed
length, and ``ratio`` keeps the weights that are furthest above their threshold instead of stopping when the sparsity
is met; thresholds per id or weight are rows of the store and follow its row rule.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.rows import Init, RowStore, RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.masked import MaskedTable, affordable_weights, masked_weights
from recembed.tables.spec import TableSpec

__all__ = ["PepConfig", "PepTable", "soft_threshold"]

Thresholds = Literal["feature", "dimension", "id", "weight"]


class PepConfig(TableConfig):
    """Vectors ``sign(x) * relu(|x| - sigmoid(s))``, then ``x`` under the mask of the weights that were not zero.

    Bytes served: ``pruned_weights``; while training ``5 * num_embeddings * embedding_dim`` (rows and mask) and the
    thresholds, one number a feature, dimension, id or weight. First-order weights start at zero, where no threshold
    could tell them apart: with ``ratio`` they train as they are and the largest are kept, else they are exact.

    Attributes:
        ratio: Served bytes as a share of the exact table's, at least one weight; without it the thresholds decide
            what stays.
        thresholds: What has a threshold of its own.
        start: First value of ``s``.
        speed: How much larger the steps of ``s`` are than those of other weights. For thresholds in the store it
            scales what they read, which under SGD counts twice.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: a feature has no vocabulary.

    >>> table = PepConfig(ratio=0.1, thresholds="dimension").build([TableSpec("item", 1000, 16)], seed=0)["item"]
    >>> table.thresholds.shape, table.served_rows
    (torch.Size([16]), {'item': 6396})
    """

    kind: Literal["pep"] = "pep"
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    thresholds: Thresholds = "dimension"
    start: Annotated[float, Field(ge=-30, le=5)] = -8.0
    speed: Annotated[float, Field(gt=0)] = 10.0
    exact_below: Annotated[int, Field(ge=0)] = 100
    recipe: ClassVar[tuple[dict[str, Any], ...]] = (
        {"name": "search", "do": "train"},
        {"name": "prune", "do": "settle"},
        {"name": "retrain", "do": "train", "start": "initial"},
    )

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; small features keep their exact table."""
        return {spec.name: self._build_one(spec) for spec in specs}

    def _build_one(self, spec: TableSpec) -> Table:
        if spec.known_ids(self.kind) <= self.exact_below:
            return FullTable.of(spec)
        if spec.linear:
            return masked_weights(spec, self.ratio)
        weights = None if self.ratio is None else affordable_weights(spec, self.ratio)
        return PepTable(spec, weights, self.thresholds, self.start, self.speed)


def soft_threshold(weights: Tensor, thresholds: Tensor) -> Tensor:
    """Return ``sign(x) * relu(|x| - threshold)``.

    >>> soft_threshold(torch.tensor([0.75, 0.25, -0.75]), torch.tensor(0.5)).tolist()
    [0.25, 0.0, -0.25]
    """
    return torch.sign(weights) * torch.relu(weights.abs() - thresholds)


class PepTable(MaskedTable):
    """Rows under soft thresholds; once settled, rows under a mask.

    Args:
        spec: The feature.
        weights: Weights that ``settle`` keeps; None keeps those above their threshold.
        granularity: What has a threshold of its own.
        start: First value of ``s``.
        speed: Size of the steps of ``s`` beside those of other weights.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    def __init__(
        self, spec: TableSpec, weights: int | None, granularity: Thresholds, start: float, speed: float
    ) -> None:
        widths = {"id": 1, "weight": spec.embedding_dim}
        slots = []
        if granularity in widths:
            name, none = f"{spec.table_name()}.thresholds", Init(scale=0.0, law="uniform")
            slots = [RowTable(name, spec.known_ids("pep"), widths[granularity], none)]
        super().__init__(spec, weights, slots)
        self.start = start
        self.speed = speed
        self.thresholds: nn.Parameter | None = None
        if not slots:
            self.thresholds = nn.Parameter(
                torch.full((spec.embedding_dim if granularity == "dimension" else 1,), start)
            )
            self.thresholds.learning_rate_factor = speed  # type: ignore[attr-defined]

    def _sigmoid(self, rows: Tensor | None) -> Tensor:
        raw = self.thresholds if rows is None else self.start + self.speed * rows
        assert raw is not None
        return torch.sigmoid(raw)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the row of each id, its weights pulled to zero by their thresholds or, once settled, masked."""
        thresholds = self._sigmoid(rows[1] if len(rows) > 1 else None)
        pulled = soft_threshold(rows[0], torch.where(self.get_buffer("settled"), 0.0, thresholds))
        return torch.where(self.get_buffer("mask")[ids], pulled, 0.0)

    def scores(self, store: RowStore) -> Tensor:
        """Return how far each weight is above its threshold, float32 ``[num_embeddings, D]``."""
        rows = store.rows(self.slots[1].name) if len(self.slots) > 1 else None
        return store.rows(self.slots[0].name).abs() - self._sigmoid(rows)
