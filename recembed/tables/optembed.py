"""``optembed``: thresholds learn which rows are worth keeping, and a search how wide the rows of each feature are.

Lyu et al., OptEmbed: Learning Optimal Embedding Table for Click-through Rate Prediction, CIKM 2022. Differs from the
paper: widths are drawn per looked-up id, so per id of a bag, by a hash of a step counter; thresholds follow the dense
optimiser (paper: plain SGD) or, per id, the row rule; those per id are penalised only where the batch reads them;
``ratio`` bounds what ``settle`` keeps, and a width search scores each candidate under that bound. The penalty raises
thresholds for as long as training lasts, so what is kept depends on the number of steps; a threshold per field counts
once a step, however many features read the table.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.hashing import hash_rows, salt
from recembed.rows import Init, RowStore, RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.kept_rows import kept_rows_bytes, rows_within, serve_kept_rows
from recembed.tables.masked import keep_largest, masked_weights
from recembed.tables.spec import TableSpec

__all__ = ["OptEmbedConfig", "OptEmbedTable", "unit_step"]


class OptEmbedConfig(TableConfig):
    """A row is kept while its norm is above a threshold; the vectors of a feature end after so many numbers.

    Bytes served: ``4 * (kept + 1) * width``, and 2 or 4 bytes per id that say where its row is, or 4 per kept row where
    that is less; all rows need neither. While training, a byte per id more than the exact table, and the thresholds.
    First-order weights start at zero, where no norm could tell them apart: with ``ratio`` they train as they are and
    the largest are kept, else they are exact.

    Attributes:
        ratio: Served bytes as a share of the exact table's, at most, but for at least one row; without it the
            thresholds alone decide.
        thresholds: One per ``field``, or per ``id``.
        norm: Order of the norm.
        alpha: Weight of the penalty ``sum(exp(-threshold))``.
        speed: How much larger the steps of thresholds are than those of other weights. For thresholds per id it
            scales what they read, which under SGD counts twice.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: a feature has no vocabulary.

    >>> table = OptEmbedConfig(ratio=0.5).build([TableSpec("item", 1000, 16)], seed=0)["item"]
    >>> table.width_choices()[-1], table.served_rows
    (16, {'item': 31956})
    """

    kind: Literal["optembed"] = "optembed"
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    thresholds: Literal["field", "id"] = "field"
    norm: Literal[1, 2] = 1
    alpha: Annotated[float, Field(ge=0)] = 1e-4
    speed: Annotated[float, Field(gt=0)] = 1.0
    exact_below: Annotated[int, Field(ge=0)] = 100
    recipe: ClassVar[tuple[dict[str, Any], ...]] = (
        {"name": "search", "do": "train"},
        {"name": "widths", "do": "widths"},
        {"name": "prune", "do": "settle"},
        {"name": "retrain", "do": "train", "start": "initial"},
    )

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; small features keep their exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        ids, width = spec.known_ids(self.kind), spec.embedding_dim
        if ids <= self.exact_below:
            return FullTable.of(spec)
        if spec.linear:
            return masked_weights(spec, self.ratio)
        rows = (
            ids if self.ratio is None else rows_within(int(self.ratio * 4 * ids * width), ids, width, spec.served_dtype)
        )
        budget = kept_rows_bytes(max(rows, 1), ids, width, spec.served_dtype)
        per_id, seeded = self.thresholds == "id", salt(spec.name, "widths", seed)
        return OptEmbedTable(spec, budget, self.norm, self.alpha, self.speed, per_id=per_id, seeded=seeded)


class _UnitStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        size = x.abs()
        slope = torch.where(size <= 0.4, 2 - 4 * size, 0.4)
        return gradient * torch.where(size <= 1, slope, 0.0)


def unit_step(x: Tensor) -> Tensor:
    """Return 1 where ``x > 0``, else 0; its gradient is the long-tailed estimator's (Xu and Cheung, 2019).

    The estimator is ``2 - 4 |x|`` up to 0.4, then 0.4 up to 1, then 0.

    >>> x = torch.tensor([0.0, 0.2], requires_grad=True)
    >>> unit_step(x).sum().backward(); x.grad.tolist()
    [2.0, 1.2000000476837158]
    """
    gates: Tensor = _UnitStep.apply(x)  # type: ignore[no-untyped-call]
    return gates


class OptEmbedTable(Table):
    """Supernet of all row masks and widths; once settled, rows under the chosen ones.

    Args:
        spec: The feature.
        budget: Bytes that may be served.
        norm: Order of the norm, 1 or 2.
        alpha: Weight of the penalty on low thresholds.
        speed: Size of the steps of thresholds beside those of other weights.
        per_id: Each id has a threshold, a row of the store; else the feature has one.
        seeded: Salt of the widths drawn in training.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``, zero from the width on, and
        all zero for an id that is not kept.
    """

    def __init__(
        self, spec: TableSpec, budget: int, norm: int, alpha: float, speed: float, *, per_id: bool, seeded: int
    ) -> None:
        ids, dim = spec.known_ids("optembed"), spec.embedding_dim
        slots = [RowTable(spec.table_name(), ids, dim, spec.init)]
        if per_id:
            slots.append(RowTable(f"{spec.table_name()}.thresholds", ids, 1, Init(scale=0.0, law="uniform")))
        super().__init__(slots, dim)
        self.name = spec.name
        self.budget = budget
        self.served_dtype = spec.served_dtype
        self.norm = norm
        self.alpha = alpha
        self.speed = speed
        self.threshold: nn.Parameter | None = None
        if not per_id:
            self.threshold = nn.Parameter(torch.zeros(1))
            self.threshold.learning_rate_factor = speed  # type: ignore[attr-defined]
        self.register_buffer("kept", torch.ones(ids, dtype=torch.bool))
        self.register_buffer("width", torch.tensor([dim]))
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self.register_buffer("salts", torch.tensor([seeded], dtype=torch.int64))

    def address(self, ids: Tensor) -> Tensor:
        """Return the id itself for every slot."""
        return ids.unsqueeze(-1).expand(*ids.shape, len(self.slots))

    def _thresholds(self, rows: Tensor | None) -> Tensor:
        raw = self.threshold if rows is None else self.speed * rows.squeeze(-1)
        assert raw is not None
        return raw

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the kept rows up to the width; before ``settle``, training draws a width for every id."""
        vectors = rows[0]
        thresholds = self._thresholds(rows[1] if len(rows) > 1 else None)  # [*S] or [1]
        margin = torch.linalg.vector_norm(vectors, ord=self.norm, dim=-1) - thresholds  # [*S]
        columns = torch.arange(self.embedding_dim, device=vectors.device)
        settled = self.get_buffer("settled")
        if self.training and not bool(settled):
            self._penalise(thresholds, ids)
            return vectors * unit_step(margin).unsqueeze(-1) * (columns < self._draw_widths(ids).unsqueeze(-1))
        kept = torch.where(settled, self.get_buffer("kept")[ids], margin > 0).unsqueeze(-1)
        return torch.where(kept & (columns < self.get_buffer("width")), vectors, 0.0)

    def _draw_widths(self, ids: Tensor) -> Tensor:
        """Return a width from 1 to ``embedding_dim`` per id, int64 ``[*S]``; each call draws others."""
        draws = self.get_buffer("draws")
        first, count = self.processes.span(ids.numel())
        places = draws + first + torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        draws.add_(count)
        return 1 + hash_rows(places, self.get_buffer("salts"), self.embedding_dim)

    def _penalise(self, thresholds: Tensor, ids: Tensor) -> None:
        if self.threshold is not None and self._losses:
            return  # once a step, however many features share the table
        low = self.alpha * torch.exp(-thresholds)
        if self.threshold is None:  # every id counts once, however often it is read
            unique, often = torch.unique(self.processes.gather(ids.flatten()), return_counts=True)
            low = low / (often[torch.searchsorted(unique, ids.contiguous())] * self.processes.share)
        self.add_loss(low.sum())

    def width_choices(self) -> tuple[int, ...]:
        """Return all widths, from 1 to ``embedding_dim``."""
        return tuple(range(1, self.embedding_dim + 1))

    def choose_width(self, width: int) -> None:
        """End the vectors of evaluation, and of training once settled, after ``width`` numbers."""
        if not 1 <= width <= self.embedding_dim:
            raise ConfigError(f"feature {self.name!r}: width = {width}: expected 1..{self.embedding_dim}")
        self.get_buffer("width").fill_(width)

    @torch.no_grad()
    def settle(self, store: RowStore) -> dict[str, float]:
        """Fix which rows stay: those above their threshold, the furthest first, while ``ratio`` can serve them."""
        rows, kept = store.rows(self.slots[0].name), self.get_buffer("kept")
        thresholds = self._thresholds(store.rows(self.slots[1].name) if len(self.slots) > 1 else None)
        margin = torch.linalg.vector_norm(rows, ord=self.norm, dim=-1) - thresholds  # [num_embeddings]
        width = int(self.get_buffer("width"))
        kept &= margin > 0
        margin = torch.where(kept, margin, -torch.inf)
        kept &= keep_largest(margin, rows_within(self.budget, len(kept), width, self.served_dtype))
        self.get_buffer("settled").fill_(True)
        self.take_losses()
        return {"kept_rows": float(kept.sum()), "width": float(width)}

    @torch.no_grad()
    def compact(self, store: RowStore) -> Table:
        """Return the kept rows, cut to the width, and how ids find them.

        Raises:
            ConfigError: the rows to keep are not settled.
        """
        if not bool(self.get_buffer("settled")):
            raise ConfigError(
                f"feature {self.name!r}: which rows to keep is not settled yet, so there is nothing smaller to serve; "
                "run a stage with do: settle after training"
            )
        rows = store.rows(self.slots[0].name)[:, : int(self.get_buffer("width"))]
        return serve_kept_rows(rows, self.get_buffer("kept"), self.embedding_dim, self.served_dtype)

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes as served: the most that ``ratio`` allows."""
        return {self.slots[0].name: self.budget}

    @property
    def served_overhead_bytes(self) -> int:
        """Nothing: what is served beside the rows is counted with them."""
        return 0
