"""What the training rows say about one numeric feature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["NumericStats"]


@dataclass(frozen=True)
class NumericStats:
    """What the training rows say about one numeric feature, per column of its vector.

    Attributes:
        mean, std: Of the values; ``std`` is of the population and 1 where all values are equal.
        log_mean, log_std: The same of ``sign(x) log(1 + |x|)``.
        min, max: Extremes.
        missing_rate: Share of rows that are null or NaN.
        quantiles: At 257 evenly spaced levels from 0 to 1, rising; exact up to 262,144 rows, from a seeded sample above.

    Shapes:
        quantiles: float32 ``[width, 257]``; all others: float64 ``[width]``.
    """

    mean: np.ndarray
    std: np.ndarray
    log_mean: np.ndarray
    log_std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    missing_rate: np.ndarray
    quantiles: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return plain lists."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "NumericStats":
        """Build from ``to_json``'s lists, bit for bit."""
        arrays: dict[str, np.ndarray] = {name: np.asarray(raw[name], np.float64) for name in cls.__dataclass_fields__}
        arrays["quantiles"] = arrays["quantiles"].astype(np.float32)
        return cls(**arrays)
