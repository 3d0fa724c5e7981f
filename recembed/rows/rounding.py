"""Rows in float16 or bfloat16: rounded at random when they are written, so that small steps are not lost.

Rounded to nearest, a step below half of the distance of two numbers leaves a row where it was: float16 numbers near 0.05 lie
3e-5 apart, bfloat16 ones 2e-4. Rounded up or down at random, with the chances that keep the expected value, steps add up
(Gupta et al., Deep Learning with Limited Numerical Precision, ICML 2015). The noise is a hash of the table, the place of
the number in it and the count of training lookups: the same after a resume, and over any number of processes.

Axes: ``U`` unique rows, ``D`` width, ``S`` tables of a stack.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.hashing import mix64, salt
from recembed.rows.optimizers import RowOptimizer
from recembed.rows.row_table import Part, RowTable

__all__ = ["Rounding", "dtype_of_rows", "round_at_random"]

_STEP = 0x9E3779B97F4A7C15 - 2**64  # SplitMix64: the streams of one seed are this far apart
_EXPONENT = 0x7F800000
_FORMS = {torch.float16: (10, 2.0**-14), torch.bfloat16: (7, 2.0**-100)}
"""Bits behind the point, and below which magnitude numbers lie equally far apart; bfloat16 goes lower, rows do not."""


def dtype_of_rows(tables: Sequence[RowTable], optimizer: RowOptimizer | None) -> torch.dtype:
    """Return what the rows of these tables are held as.

    Raises:
        ConfigError: they differ, or the row rule needs float32.
    """
    names = sorted({table.dtype for table in tables}) or ["float32"]
    if len(names) > 1:
        raise ConfigError(f"tables of one store hold rows as {' and '.join(names)}: expected one type for all")
    if names[0] != "float32" and optimizer is not None and optimizer.weight_decay:
        raise ConfigError(
            f"row_optimizer.weight_decay = {optimizer.weight_decay}: its small factors are lost on {names[0]} rows; use "
            "embeddings.l2, or set embeddings.row_dtype to 'float32'"
        )
    dtype: torch.dtype = getattr(torch, names[0])
    return dtype


def round_at_random(values: Tensor, noise: Tensor, dtype: torch.dtype) -> Tensor:
    """Round each number to one of its two neighbours in ``dtype``; over all noises the mean is the number itself.

    Shapes:
        values: float32 of any shape; noise: int16 of the same shape, all values alike. Returns ``dtype``.

    >>> noise = torch.arange(-(2**15), 2**15).short()
    >>> round_at_random(torch.full((2**16,), 0.10001), noise, torch.bfloat16).double().mean().item()
    0.10001000016927719
    """
    bits, least = _FORMS[dtype]
    exponents = (values.view(torch.int32) & _EXPONENT).view(torch.float32)  # the power of two below each number
    gaps = exponents.clamp_(min=least).mul_(2.0**-bits)
    drawn = (noise >> (bits - 7)).float().mul_(2.0 ** (bits - 23)).add_(0.5)  # 0 .. 1, as fine as the bits cut off
    return (values / gaps).add_(drawn).floor_().mul_(gaps).to(dtype)


class Rounding(nn.Module):
    """Rounds the rows of one stack.

    Args:
        tables: The tables of the stack, side by side.
        dtype: What to round to.
        seed: The noise depends on it.
        device: Where the rows are.

    >>> rounding = Rounding([RowTable("item", 3, 2)], torch.float16, seed=0)
    >>> rounding(torch.ones(1, 2), torch.tensor([2]), torch.tensor(5))
    tensor([[1., 1.]], dtype=torch.float16)
    """

    def __init__(
        self, tables: Sequence[RowTable], dtype: torch.dtype, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.dtype = dtype
        ends, shifts, columns, end = list[int](), list[int](), list[int](), 0
        for table in tables:
            part = table.part or Part(table.name, table.num_embeddings, table.embedding_dim)
            shifts.append(_wrapped(salt("rounding", part.name, seed) + part.first_row - end))
            columns.append(part.first_column)
            ends.append(end := end + table.num_embeddings)
        self._cut = any(columns)
        for name, numbers in (("ends", ends), ("shifts", shifts), ("columns", columns)):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.int64, device=device), persistent=False)

    def forward(self, rows: Tensor, addresses: Tensor, moment: Tensor) -> Tensor:
        """Return the rows, rounded.

        Shapes:
            rows: float32 ``[U, D]``; addresses: int64 ``[U]`` in the stack; moment: int64 ``[]``, the count of lookups.
            Returns ``[U, D]``.
        """
        segments = torch.searchsorted(self.get_buffer("ends"), addresses, right=True)  # [U]
        starts = mix64((addresses + self.get_buffer("shifts")[segments]) ^ mix64(moment.view(1))).unsqueeze(1)  # [U, 1]
        width = rows.shape[1]
        if not self._cut:
            noise = _noise(starts, width)[:, :width]
            return round_at_random(rows, noise, self.dtype)
        first = self.get_buffer("columns")[segments].unsqueeze(1)  # [U, 1]
        noise = _noise(starts, int(self.get_buffer("columns").max()) + width)
        return round_at_random(rows, noise.gather(1, first + torch.arange(width, device=rows.device)), self.dtype)


def _noise(starts: Tensor, width: int) -> Tensor:
    """Return at least ``width`` int16 for each of ``starts``, int64 ``[U, 1]``; a hash of 64 bits makes four of them."""
    words = mix64(starts + _STEP * torch.arange(1, -(-width // 4) + 1, device=starts.device))  # [U, W]
    return words.view(torch.int16)


def _wrapped(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63
