"""``Piece``: what of a tensor lies in this process."""

from dataclasses import dataclass, replace

from torch import Tensor

__all__ = ["Piece"]


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
        """Return a whole tensor as a piece."""
        return cls(values.detach(), (0,) * values.ndim, tuple(values.shape), saved)

    def copy(self) -> "Piece":
        """Return the piece with values of its own, on CPU."""
        return replace(self, values=self.values.detach().to("cpu", copy=True))
