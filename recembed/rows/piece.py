"""``Piece``: what of a tensor lies in this process."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

__all__ = ["Piece", "hold_rows", "is_part"]

_ROWS = "held_rows"


def hold_rows(parameter: nn.Parameter, start: int, whole: int) -> None:
    """Say that a parameter is the rows from ``start`` on of one with ``whole`` rows, the rest of which others hold.

    Its gradient is not summed over processes; checkpoints know it as the one with all rows.
    """
    setattr(parameter, _ROWS, (start, whole))


def is_part(parameter: Tensor) -> bool:
    """Return whether ``hold_rows`` was said of a parameter."""
    return hasattr(parameter, _ROWS)


@dataclass(frozen=True, slots=True)
class Piece:
    """What of a tensor lies in this process.

    Attributes:
        values: The live part.
        start: Where it begins in the whole, a number for each axis.
        whole: Shape of the whole.
        saved: Whether this process writes it to a checkpoint; of copies only one is written.

    >>> import torch
    >>> Piece.of(torch.zeros(3, 2)).start
    (0, 0)
    """

    values: Tensor
    start: tuple[int, ...]
    whole: tuple[int, ...]
    saved: bool = True

    @classmethod
    def of(cls, values: Tensor, *, saved: bool = True) -> "Piece":
        """Return a tensor as a piece: whole, or what ``hold_rows`` said of it, which is always saved."""
        first, rows = getattr(values, _ROWS, (0, None))
        if rows is None:
            return cls(values.detach(), (0,) * values.ndim, tuple(values.shape), saved)
        return cls(values.detach(), (first, *(0,) * (values.ndim - 1)), (rows, *values.shape[1:]))

    def within(self, whole: Tensor) -> Tensor:
        """Return what lies in ``whole`` where this piece does."""
        return whole[tuple(slice(a, a + n) for a, n in zip(self.start, self.values.shape, strict=True))]

    def copy(self) -> "Piece":
        """Return the piece with values of its own, on CPU."""
        return replace(self, values=self.values.detach().to("cpu", copy=True))
