"""The network of T-JEPA: a transformer over the cells of a row, and the predictor of cells that it does not see.

Axes: ``B`` rows, ``F`` columns, ``C`` columns seen, ``T`` columns wanted, ``R`` regularisation tokens, ``D`` width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.items.entity_columns import Cells, EntityColumns

__all__ = ["CellEncoder", "CellPredictor"]


def _transformer(width: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)


class CellEncoder(nn.Module):
    """One token per cell and the regularisation tokens, through a transformer.

    Args:
        columns: The columns, numeric ones first.
        width: Of a token.
        heads, layers, dropout: Of the transformer.
        registers: How many regularisation tokens: learned, the same for every row, read by all cells, and never a target.

    Shapes:
        places: int64 ``[B, C]``, the columns seen; None is all. Returns float32 ``[B, C, D]``, then ``[B, R, D]``.
    """

    def __init__(
        self, columns: EntityColumns, width: int, *, heads: int, layers: int, registers: int, dropout: float
    ) -> None:
        super().__init__()
        numeric, sizes = len(columns.numeric), [len(values) + 1 for values in columns.values]
        self.registers = nn.Parameter(torch.randn(registers, width) * width**-0.5)
        self.column = nn.Parameter(torch.randn(numeric + len(sizes), width) * width**-0.5)
        self.slope = nn.Parameter(torch.randn(numeric, width) * width**-0.5)
        self.absent = nn.Parameter(torch.randn(numeric, width) * width**-0.5)
        self.category = nn.Parameter(torch.randn(sum(sizes), width) * width**-0.5)
        self.register_buffer("starts", torch.tensor([0, *sizes[:-1]], dtype=torch.int64)[: len(sizes)].cumsum(0))
        self.transformer = _transformer(width, heads, layers, dropout)

    def tokens(self, cells: Cells) -> Tensor:
        """Return the tokens of all cells, ``[B, F, D]``: what stands there, and in which column."""
        numbers = cells.numbers.unsqueeze(-1)  # [B, W, 1]
        numeric = torch.where(numbers.isnan(), self.absent, numbers.nan_to_num() * self.slope)  # [B, W, D]
        codes = F.embedding(cells.codes + self.get_buffer("starts"), self.category)  # [B, K, D]
        return torch.cat([numeric, codes], dim=1) + self.column

    def forward(self, cells: Cells, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode the cells seen."""
        tokens = self.tokens(cells)  # [B, F, D]
        if places is not None:
            tokens = taken(tokens, places)  # [B, C, D]
        seen = tokens.shape[1]
        registers = self.registers.expand(len(tokens), -1, -1)  # [B, R, D]
        whole = self.transformer(torch.cat([tokens, registers], dim=1))
        return whole[:, :seen], whole[:, seen:]


class CellPredictor(nn.Module):
    """Predicts the target encoder's tokens of columns from those of others.

    Args:
        columns: How many columns there are.
        width: Of a token.
        heads, layers, dropout: Of its transformer.

    Shapes:
        context: float32 ``[B, C + R, D]``; places: int64 ``[B, T]``. Returns float32 ``[B, T, D]``.
    """

    def __init__(self, columns: int, width: int, *, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.wanted = nn.Parameter(torch.randn(columns, width) * width**-0.5)
        self.transformer = _transformer(width, heads, layers, dropout)
        self.output = nn.Linear(width, width)

    def forward(self, context: Tensor, places: Tensor) -> Tensor:
        """Ask for the columns at ``places``."""
        asked = self.wanted[places]  # [B, T, D]
        whole = self.transformer(torch.cat([context, asked], dim=1))
        predicted: Tensor = self.output(whole[:, context.shape[1] :])
        return predicted


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """Return the tokens ``[B, F, D]`` at places ``[B, C]``, ``[B, C, D]``."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
