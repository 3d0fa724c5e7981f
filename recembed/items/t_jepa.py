"""Tables of attributes → vectors by predicting, in latent space, some cells of a row from others (T-JEPA).

Thimonier et al., T-JEPA: Augmentation-Free Self-Supervised Learning for Tabular Data, ICLR 2025. A context encoder sees some
columns of a row, a predictor is told which others are wanted, and the target is what a moving average of the encoder
makes of these when it sees the whole row; the error is the mean square. Regularisation tokens beside the cells keep the
vectors from collapsing. Differs from the paper: columns are told apart by learned vectors alone (no sine positions, no
vector per kind of column), layers normalise before they attend, and a missing cell is a token of its own.
Axes: ``N`` rows, ``B`` rows of a step, ``F`` columns, ``C`` columns seen, ``T`` columns wanted, ``D`` width of a token.
"""

import copy
import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError, DataError
from recembed.items.entity_columns import Cells, EntityColumns
from recembed.items.rank import rank_me
from recembed.items.t_jepa_network import CellEncoder, CellPredictor, taken

__all__ = ["TJEPA", "TJEPAConfig", "draw_columns", "train_t_jepa"]

_log = logging.getLogger("recembed.items")
_RANK_ROWS = 2048
_ROWS = 4096

_Share = Annotated[float, Field(gt=0, lt=1)]


class TJEPAConfig(BaseModel):
    """The network and its training.

    Attributes:
        token_dim: Width of a cell's token.
        layers, heads: Of the encoder's transformer.
        predictor_layers: Of the predictor's.
        regularisation_tokens: Beside the cells of a row; 0 invites collapse.
        dropout: In both transformers.
        context_share: Least and greatest share of the columns that the context encoder sees.
        target_share: Least and greatest share that is wanted of it, never one that it sees.
        targets: Sets of columns wanted per row and step.
        momentum: Weight of the target encoder's own past at the first step; it rises to 1 at the last.
        pool: A row's vector: all its tokens side by side (``concat``, ``F D`` wide), or their mean (``D`` wide).
        least_rank: RankMe below which a warning says that the vectors collapsed.
        categorical: Columns of integers that are categories; text always is.
        epochs, batch_size, learning_rate: Of AdamW.
        seed: Fresh weights, order and masks depend on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    token_dim: Annotated[int, Field(ge=2)] = 32
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    predictor_layers: Annotated[int, Field(ge=1)] = 1
    regularisation_tokens: Annotated[int, Field(ge=0)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    context_share: tuple[_Share, _Share] = (0.3, 0.6)
    target_share: tuple[_Share, _Share] = (0.2, 0.5)
    targets: Annotated[int, Field(ge=1)] = 2
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.99
    pool: Literal["concat", "mean"] = "concat"
    least_rank: Annotated[float, Field(ge=1)] = 2.0
    categorical: tuple[str, ...] = ()
    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=1)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "TJEPAConfig":
        if self.token_dim % self.heads:
            raise ValueError(f"token_dim = {self.token_dim} is no multiple of heads = {self.heads}")
        for name in ("context_share", "target_share"):
            least, greatest = getattr(self, name)
            if least > greatest:
                raise ValueError(f"{name} = [{least}, {greatest}]: expected the least share first")
        return self


def draw_columns(
    rows: int, columns: int, config: TJEPAConfig, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """Draw, for each row, the columns that are seen and the sets that are wanted; the two never meet.

    Shapes:
        Returns int64 ``[B, C]`` and ``config.targets`` times int64 ``[B, T]``; sizes are drawn once for all rows.

    >>> seen, wanted = draw_columns(2, 5, TJEPAConfig(targets=1), torch.Generator().manual_seed(0))
    >>> [set(row) & set(other) for row, other in zip(seen.tolist(), wanted[0].tolist())]
    [set(), set()]
    """
    size = _size(config.context_share, columns, columns - 1, generator)
    order = torch.rand(rows, columns, generator=generator).argsort(1)
    seen, rest = order[:, :size], order[:, size:]
    wanted = []
    for _ in range(config.targets):
        count = _size(config.target_share, columns, columns - size, generator)
        places = torch.rand(rows, columns - size, generator=generator).argsort(1)[:, :count]
        wanted.append(rest.gather(1, places))
    return seen, wanted


def _size(share: tuple[float, float], columns: int, most: int, generator: torch.Generator) -> int:
    least, greatest = (min(max(round(part * columns), 1), most) for part in share)
    return int(torch.randint(least, greatest + 1, (), generator=generator))


class TJEPA(nn.Module):
    """Context encoder, target encoder and predictor over the columns of a table.

    Args:
        columns: The columns, fitted.
        config: The network.

    Raises:
        DataError: there is but one column, so that nothing can be told from anything else.
    """

    def __init__(self, columns: EntityColumns, config: TJEPAConfig) -> None:
        super().__init__()
        self.columns, self.config = columns, config
        self.names = (*columns.numeric, *columns.categorical)
        if len(self.names) < 2:
            raise DataError(
                f"the table has {len(self.names)} column; one can only be told from another: give 2 or more"
            )
        width, heads, dropout = config.token_dim, config.heads, config.dropout
        self.context = CellEncoder(
            columns, width, heads=heads, layers=config.layers, registers=config.regularisation_tokens, dropout=dropout
        )
        self.predictor = CellPredictor(
            len(self.names), width, heads=heads, layers=config.predictor_layers, dropout=dropout
        )
        self.target = copy.deepcopy(self.context).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "TJEPA":
        """Set the mode of context encoder and predictor; the target encoder never drops anything."""
        super().train(mode)
        self.target.eval()
        return self

    def loss(self, cells: Cells, seen: Tensor, wanted: Sequence[Tensor]) -> Tensor:
        """Return the mean square of predicted tokens against the target encoder's, over rows and sets of columns.

        Shapes:
            seen: int64 ``[B, C]``; wanted: int64 ``[B, T]`` each. Returns a scalar.
        """
        with torch.no_grad():
            whole, _ = self.target(cells)  # [B, F, D]
        context = torch.cat(self.context(cells, seen), dim=1)  # [B, C + R, D]
        errors = [F.mse_loss(self.predictor(context, places), taken(whole, places)) for places in wanted]
        return torch.stack(errors).mean()

    @torch.no_grad()
    def move_target(self, momentum: float) -> None:
        """Set the target encoder's weights to ``momentum`` times themselves plus the rest of the context encoder's."""
        for own, other in zip(self.target.parameters(), self.context.parameters(), strict=True):
            own.lerp_(other, 1 - momentum)

    @property
    def embedding_dim(self) -> int:
        """Width of a row's vector."""
        return self.config.token_dim * (len(self.names) if self.config.pool == "concat" else 1)

    @torch.no_grad()
    def vectors(self, frame: pl.DataFrame) -> np.ndarray:
        """Return the target encoder's vectors of rows, float32 ``[N, embedding_dim]``; see ``EntityColumns.encode``."""
        return self._vectors(self.columns.encode(frame)).numpy()

    @torch.no_grad()
    def _vectors(self, cells: Cells) -> Tensor:
        found = [torch.empty(0, self.embedding_dim)]
        for places in torch.split(torch.arange(len(cells)), _ROWS):
            tokens, _ = self.target(cells.rows(places))  # [B, F, D]
            found.append(tokens.flatten(1) if self.config.pool == "concat" else tokens.mean(1))
        return torch.cat(found)

    def rank(self, cells: Cells) -> float:
        """Return RankMe of the vectors of the first rows."""
        return rank_me(self._vectors(cells.rows(torch.arange(min(len(cells), _RANK_ROWS)))))


def train_t_jepa(frame: pl.DataFrame, config: TJEPAConfig | None = None) -> tuple[TJEPA, list[float]]:
    """Train on the rows of a table of numbers and text; ids are no attributes, leave them out.

    Returns:
        The model, in evaluation mode, and RankMe after each epoch.

    Raises:
        ConfigError: a loss is not finite. DataError: see ``EntityColumns.fit``; or there is only one column.

    >>> table = pl.DataFrame({"year": [1990, 1994, None], "genre": ["a", "b", "a"]})
    >>> model, ranks = train_t_jepa(table, TJEPAConfig(token_dim=4, heads=1, epochs=2, pool="mean", least_rank=1))
    >>> model.vectors(table).shape, len(ranks)
    ((3, 4), 2)
    """
    config = config or TJEPAConfig()
    columns = EntityColumns.fit(frame, config.categorical)
    cells = columns.encode(frame)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = TJEPA(columns, config).train()
        moved = [*model.context.parameters(), *model.predictor.parameters()]
        optimizer = torch.optim.AdamW(moved, config.learning_rate)
        steps, step, ranks = config.epochs * -(-len(cells) // config.batch_size), 0, []
        for _ in range(config.epochs):
            for places in torch.split(torch.randperm(len(cells), generator=generator), config.batch_size):
                loss = model.loss(cells.rows(places), *draw_columns(len(places), len(model.names), config, generator))
                if not loss.isfinite():
                    raise ConfigError(f"step {step + 1}: the loss is {loss.item()}; lower learning_rate")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
                model.move_target(momentum_at(step, steps, config.momentum))
            ranks.append(model.rank(cells))
    if ranks[-1] < config.least_rank:
        _log.warning(
            "T-JEPA: the vectors collapsed (RankMe %.2f, least_rank = %g); raise regularisation_tokens or momentum, or "
            "lower learning_rate",
            ranks[-1],
            config.least_rank,
        )
    return model.eval(), ranks


def momentum_at(step: int, steps: int, first: float) -> float:
    """Return the momentum after ``step`` of ``steps``: ``first`` after the first one, 1 after the last, in a line.

    >>> [momentum_at(step, 3, 0.5) for step in (1, 2, 3)]
    [0.5, 0.75, 1.0]
    """
    return first + (1 - first) * (step - 1) / max(steps - 1, 1)
