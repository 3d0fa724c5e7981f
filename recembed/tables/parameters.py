"""Dense parameters of a method's decode, drawn from their names, as rows are."""

import torch
from torch import nn

from recembed.hashing import salt

__all__ = ["uniform_parameter"]


def uniform_parameter(shape: tuple[int, ...], std: float, *words: str | int) -> nn.Parameter:
    """Return a parameter drawn uniformly around zero with standard deviation ``std``.

    It depends on ``words`` (feature name, part, seed) alone, so a feature more or less changes no other.

    >>> torch.equal(uniform_parameter((2, 3), 1.0, "city", 0), uniform_parameter((2, 3), 1.0, "city", 0))
    True
    """
    values = torch.empty(shape)
    if not values.is_meta:
        generator = torch.Generator().manual_seed(salt("parameter", *words) & (2**63 - 1))
        values.uniform_(-(3**0.5) * std, 3**0.5 * std, generator=generator)
    return nn.Parameter(values)
