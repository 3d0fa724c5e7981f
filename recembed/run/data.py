"""Config → the rows of a run: opened, checked, split."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import polars as pl

from recembed.config import RunConfig
from recembed.data import SplitConfig, Splits, check_columns, load_dataset, reading, scan, split_frame
from recembed.errors import ConfigError, DataError, did_you_mean
from recembed.run.build import select_features
from recembed.schema.feature import Schema
from recembed.schema.fitted import KeyType

__all__ = ["RunData", "open_data", "open_rows", "reading_rows"]


@dataclass(frozen=True)
class RunData:
    """The rows of a run before any encoding.

    Attributes:
        config: The run's config with the data set's schema and split filled in.
        schema: The columns in use.
        splits: Training, validation and test rows, lazy.
        name: What the rows are called in tracking.
        origin: Where they came from.
    """

    config: RunConfig
    schema: Schema
    splits: Splits
    name: str
    origin: str


def open_data(config: RunConfig, *, labels: bool = True) -> RunData:
    """Open the rows of a run and cut them; nothing but headers (and split thresholds) is read yet.

    Args:
        config: The run.
        labels: Whether it needs a label.

    Raises:
        DataError: a file or column is missing or of another type, or ``data.where`` does not fit one.
        ConfigError: the schema has no label.
    """
    data = config.data
    split = config.split or SplitConfig()
    if data.dataset is not None:
        dataset = load_dataset(data.dataset)
        frame, schema = dataset.frame, config.schema_ or dataset.schema
        split = config.split or dataset.split
        name = origin = data.dataset
    else:
        assert data.path is not None  # RunConfig checks both
        assert config.schema_ is not None
        frame, schema = open_rows(config, data.path), config.schema_
        name, origin = config.name, str(data.path)
    schema = select_features(schema, data.use)
    if labels and not schema.labels:
        raise ConfigError(f"data {name!r} has no label; name one under schema.labels")
    check_columns(frame, schema)
    frame = _where(frame, data.where)
    effective = config.model_copy(update={"schema_": schema, "split": split})
    return RunData(effective, schema, split_frame(frame, split, schema), name, origin)


def _where(frame: pl.LazyFrame, allowed: Mapping[str, Sequence[bool | int | float | str]]) -> pl.LazyFrame:
    """Keep the rows whose value is listed in every column that ``allowed`` names; a missing value never is.

    Raises:
        DataError: no such column, or a listed value is not of its type.
    """
    types = frame.collect_schema() if allowed else {}
    for name, values in allowed.items():
        if name not in types:
            raise DataError(f"data.where: column {name!r} is not in the data" + did_you_mean(name, types))
        for value in values:
            if not _fits(value, types[name]):
                raise DataError(
                    f"data.where: {value!r} in {name!r}: expected values of type {types[name]}, as the column"
                )
        frame = frame.filter(pl.col(name).is_in(pl.Series(values, dtype=types[name]).implode()))
    return frame


def _fits(value: bool | int | float | str, column: pl.DataType) -> bool:
    if isinstance(value, str):
        return column == pl.String
    if isinstance(value, bool):
        return column == pl.Boolean
    return column.is_float() or (column.is_integer() and value == int(value))


def open_rows(
    config: RunConfig, path: str | tuple[str, ...], key_types: Mapping[str, KeyType] | None = None
) -> pl.LazyFrame:
    """Open files in the way ``config.data`` says.

    Args:
        config: The run.
        path: A file, a folder, a glob, or several of them.
        key_types: Types of id columns that are known from training; text files are read with them.
    """
    data = config.data
    return scan(
        path if isinstance(path, str) else list(path),
        format=data.format,
        has_header=data.has_header,
        columns=data.columns,
        separator=data.separator,
        encoding=data.encoding,
        dtypes={**(key_types or {}), **data.dtypes},
    )


def reading_rows(config: RunConfig) -> AbstractContextManager[None]:
    """Return the block in which the run's rows are read: a fault of a file is told with its name, line and fix."""
    path = config.data.path
    if path is None:
        return nullcontext()
    return reading(path if isinstance(path, str) else list(path), separator=config.data.separator)
