"""``EntityColumns``: the columns of a table of users or items as scores and codes, missing cells marked.

Axes: ``N`` rows, ``W`` numeric columns, ``K`` categorical columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recembed.errors import DataError, did_you_mean

__all__ = ["Cells", "EntityColumns"]

_FARTHEST = 10.0


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of some rows.

    Shapes:
        numbers: float32 ``[N, W]``, standardised, NaN where missing; codes: int64 ``[N, K]``, 0 where missing or not
        known from the rows that were fitted.
    """

    numbers: Tensor
    codes: Tensor

    def __len__(self) -> int:
        """Return ``N``."""
        return len(self.numbers)

    def rows(self, places: Tensor) -> "Cells":
        """Return the rows at int64 positions."""
        return Cells(self.numbers[places], self.codes[places])


@dataclass(frozen=True, eq=False)
class EntityColumns:
    """What fitting learned of the columns.

    Attributes:
        numeric: Names of the columns of numbers.
        mean, std: Of each, float64 ``[W]``, missing cells left out.
        categorical: Names of the columns of categories.
        values: The values of each, sorted; code ``i + 1`` stands for ``values[i]``.

    >>> frame = pl.DataFrame({"year": [1990, None, 1994], "genre": ["b", "a", None]})
    >>> columns = EntityColumns.fit(frame)
    >>> cells = columns.encode(frame)
    >>> cells.numbers.tolist(), cells.codes.tolist()
    ([[-1.0], [nan], [1.0]], [[2], [1], [0]])
    """

    numeric: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    categorical: tuple[str, ...]
    values: tuple[pl.Series, ...]

    @classmethod
    def fit(cls, frame: pl.DataFrame, categorical: Sequence[str] = ()) -> "EntityColumns":
        """Learn means, spreads and values; text is categorical, and so are the columns of integers that are named.

        Raises:
            DataError: there are no rows, a column has a type that is neither, or a named one is not there.
        """
        if not frame.height:
            raise DataError("the table has no rows to learn from")
        for name in categorical:
            if name not in frame.columns:
                raise DataError(f"categorical: column {name!r} is not in the table" + did_you_mean(name, frame.columns))
        names = [name for name in frame.columns if name in categorical or _is_text(name, frame.schema[name])]
        numeric = [name for name in frame.columns if name not in names]
        numbers = _numbers(frame, numeric)
        known = np.isfinite(numbers)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, numbers, 0.0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, numbers - mean, 0.0) ** 2).sum(axis=0) / count)
        values = tuple(frame[name].cast(pl.String).drop_nulls().unique().sort() for name in names)
        return cls(tuple(numeric), mean, np.where(spread > 0, spread, 1.0), tuple(names), values)

    def encode(self, frame: pl.DataFrame) -> Cells:
        """Return the cells of a table with the same columns; the order of columns does not matter.

        Raises:
            DataError: a column is not there, is no longer of its kind, or holds an infinite number.
        """
        for name in (*self.numeric, *self.categorical):
            if name not in frame.columns:
                raise DataError(
                    f"column {name!r} was fitted and is not in the table" + did_you_mean(name, frame.columns)
                )
        for name in self.numeric:
            if _is_text(name, frame.schema[name]):
                raise DataError(f"column {name!r} held numbers when it was fitted, now it is {frame.schema[name]}")
        scores = (_numbers(frame, self.numeric) - self.mean) / self.std
        codes = np.zeros((frame.height, len(self.categorical)), np.int64)
        for place, (name, values) in enumerate(zip(self.categorical, self.values, strict=True)):
            text = frame[name].cast(pl.String)
            known = pl.DataFrame({"value": values, "code": np.arange(1, len(values) + 1)})
            found = pl.DataFrame({"value": text}).join(known, on="value", how="left", maintain_order="left")["code"]
            codes[:, place] = found.fill_null(0).to_numpy()
        clipped = np.clip(scores, -_FARTHEST, _FARTHEST).astype(np.float32)
        return Cells(torch.from_numpy(clipped), torch.from_numpy(codes))


def _is_text(name: str, dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum) or dtype == pl.Boolean:
        return True
    if not dtype.is_numeric():
        raise DataError(f"column {name!r} has type {dtype}: expected numbers or text; cast it, or leave it out")
    return False


def _numbers(frame: pl.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Return float64 ``[N, W]``, NaN where missing."""
    numbers = np.empty((frame.height, len(names)))
    for place, name in enumerate(names):
        numbers[:, place] = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        if infinite := int(np.isinf(numbers[:, place]).sum()):
            raise DataError(f"column {name!r} holds {infinite:,} infinite numbers; make them missing, or bound them")
    return numbers
