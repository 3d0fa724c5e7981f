"""Training, validation and test rows: by time, by user, by item, by chance, by a column or in file order.

The parts are lazy filters of one frame. Chance is a seeded xxHash64 of the row number or of the user or item id, so
the same seed cuts the same rows on every run and machine, and no row order has to be drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import polars as pl
import polars_hash  # noqa: F401  (registers .nchash)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recembed.errors import ConfigError, DataError, did_you_mean
from recembed.schema.feature import Schema
from recembed.settings import explain_validation

__all__ = ["Part", "SplitConfig", "Splits", "split_frame"]

Part = Literal["train", "valid", "test"]
_ROW = "__row__"


class SplitConfig(BaseModel):
    """How to cut a data set.

    Attributes:
        by: ``time`` (the last rows are tested), ``user`` or ``item`` (all rows of one go to one part), ``random`` (each
            row by itself), ``column`` (a column says the part) or ``rows`` (file order, the last are tested).
        column: The column of ``by: column``; for ``time``, ``user`` and ``item`` in place of the one in the schema.
        valid: Share of the rows (of the users or items in ``by: user`` and ``item``) to validate on.
        test: Share to test on; the rest is for training.
        cold_items: Share of the items whose rows are all tested, after the test rows of the others, which are cut as said.
        seed: Draws another cut in ``user``, ``item`` and ``random``, and other cold items.
        values: The values of ``column`` that mean each part; by default ``train``, ``valid`` and ``test``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["time", "user", "item", "random", "column", "rows"] = "random"
    column: str | None = None
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    cold_items: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: int = 0
    values: dict[Part, tuple[str | int, ...]] | None = None

    @model_validator(mode="after")
    def _check(self) -> "SplitConfig":
        if self.valid + self.test >= 1:
            raise ValueError(f"valid + test = {self.valid + self.test:g} leaves no rows to train on; expected under 1")
        if self.by == "column" and self.column is None:
            raise ValueError("by = 'column' needs column, the name of the column that says the part")
        if self.by != "column" and self.values is not None:
            raise ValueError(f"values belongs to by = 'column'; by is {self.by!r}")
        listed = [str(value) for part in (self.values or {}).values() for value in part]
        if twice := [value for value in listed if listed.count(value) > 1]:
            raise ValueError(f"value {twice[0]!r} is listed twice in values; put it in one part")
        if self.by == "item" and self.cold_items:
            raise ValueError(
                "by = 'item' tests on cold items alone; leave cold_items out, or cut the others by another rule"
            )
        if self.by in ("random", "rows") and self.column is not None:
            raise ValueError(f"column = {self.column!r} has no meaning for by = {self.by!r}; leave it out")
        return self

    @classmethod
    def parse(cls, raw: Any) -> "SplitConfig":
        """Build from plain dictionaries; raises ``ConfigError`` with the place and the fix."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, "split", cls)) from None


@dataclass(frozen=True)
class Splits:
    """The three parts, lazy; together they are the whole frame, and no row is in two."""

    train: pl.LazyFrame
    valid: pl.LazyFrame
    test: pl.LazyFrame

    def items(self) -> Iterator[tuple[Part, pl.LazyFrame]]:
        """Yield each part's name and frame."""
        yield "train", self.train
        yield "valid", self.valid
        yield "test", self.test


def split_frame(frame: pl.LazyFrame, config: SplitConfig, schema: Schema) -> Splits:
    """Cut ``frame`` into three lazy parts.

    By time, all rows of one time stand on one side: a time belongs to the part in which its first row falls, so
    no training row is as late as a later part's earliest. That way reads the column once now, as ``column``
    does (to refuse values of no part) and ``rows`` (to count); the others read nothing yet.

    Raises:
        ConfigError: the schema names no timestamp or user, and the config names no column.
        DataError: the column is missing, has nulls, has values that stand in no part, or leaves a part empty.

    >>> frame = pl.LazyFrame({"t": [3, 1, 2, 2]})
    >>> schema = Schema.parse({"features": [], "timestamp": "t"})
    >>> splits = split_frame(frame, SplitConfig(by="time", valid=0, test=0.25), schema)
    >>> splits.train.collect()["t"].to_list(), splits.test.collect()["t"].to_list()
    ([1, 2, 2], [3])
    """
    if config.cold_items:
        return _with_cold_items(frame, config, schema)
    if config.by == "rows":
        return _by_rows(frame, config)
    if config.by == "time":
        return _by_time(frame, config, _column(frame, config.column or schema.timestamp, "timestamp"))
    if config.by == "column":
        return _by_column(frame, config, _column(frame, config.column, "column"))
    if config.by == "user" or config.by == "item":
        feature = schema.role(config.by)
        name = _column(frame, config.column or (feature.source if feature else None), f"feature with role: {config.by}")
        return _by_share(frame, _share_of(pl.col(name).cast(pl.String), config.seed), config)
    share = _share_of(pl.col(_ROW).cast(pl.String), config.seed)
    cut = _by_share(frame.with_row_index(_ROW), share, config)
    return Splits(*(part.drop(_ROW) for _, part in cut.items()))


def _with_cold_items(frame: pl.LazyFrame, config: SplitConfig, schema: Schema) -> Splits:
    item = schema.role("item")
    if item is None or item.kind != "categorical":
        raise ConfigError("split.cold_items: the schema has no categorical feature with role: item; name it there")
    share = _share_of(pl.concat_str(pl.lit("cold"), pl.col(item.source).cast(pl.String)), config.seed)
    cold = pl.col(item.source).is_not_null() & (share < config.cold_items)
    rest = split_frame(frame.filter(~cold), config.model_copy(update={"cold_items": 0.0}), schema)
    return Splits(rest.train, rest.valid, pl.concat([rest.test, frame.filter(cold)]))


def _column(frame: pl.LazyFrame, name: str | None, what: str) -> str:
    if name is None:
        raise ConfigError(f"split: the schema has no {what}; name one there, or give split.column")
    names = frame.collect_schema().names()
    if name not in names:
        raise DataError(f"split: column {name!r} is missing" + did_you_mean(name, names))
    return name


def _share_of(text: pl.Expr, seed: int) -> pl.Expr:
    """Return a number in [0, 1) for each text, missing ones as one value."""
    hashed: pl.Expr = text.fill_null("\x00").nchash.xxhash64(seed=seed % 2**64)  # type: ignore[attr-defined]
    return hashed.cast(pl.Float64) / 2.0**64


def _by_share(frame: pl.LazyFrame, share: pl.Expr, config: SplitConfig) -> Splits:
    test, held_out = config.test, config.test + config.valid
    return Splits(
        frame.filter(share >= held_out),
        frame.filter((share >= test) & (share < held_out)),
        frame.filter(share < test),
    )


def _sizes(rows: int, config: SplitConfig) -> tuple[int, int, int]:
    test, valid = round(rows * config.test), round(rows * config.valid)
    for name, share, size in (("valid", config.valid, valid), ("test", config.test, test)):
        if share > 0 and size == 0:
            raise DataError(f"split: {name} = {share:g} of {rows} rows is no row; give a greater share or more data")
    if rows - valid - test <= 0:
        raise DataError(f"split: valid = {valid} and test = {test} of {rows} rows leave none to train on")
    return rows - valid - test, valid, test


def _by_rows(frame: pl.LazyFrame, config: SplitConfig) -> Splits:
    train, valid, _ = _sizes(frame.select(pl.len()).collect().item(), config)
    return Splits(frame.slice(0, train), frame.slice(train, valid), frame.slice(train + valid))


def _by_time(frame: pl.LazyFrame, config: SplitConfig, column: str) -> Splits:
    counts = frame.group_by(pl.col(column).alias("time")).agg(pl.len().alias("rows")).collect(engine="streaming")
    unknown = pl.col("time").is_null()
    if counts["time"].dtype.is_float():
        unknown |= pl.col("time").is_nan()
    if missing := counts.filter(unknown)["rows"].sum():
        raise DataError(f"split: timestamp {column!r} is missing in {missing} rows; fill them or drop the rows")
    train, valid, _ = _sizes(int(counts["rows"].sum()), config)
    before = counts.sort("time").with_columns(before=pl.col("rows").cum_sum() - pl.col("rows"))
    first = {}
    for name, start in (("valid", train), ("test", train + valid)):
        later = before.filter(pl.col("before") >= start)
        if later.height == 0 and (config.valid if name == "valid" else config.test) > 0:
            raise DataError(
                f"split: no time of {column!r} is late enough for {name}: too many rows share the last time"
            )
        first[name] = later["time"][0] if later.height else None
    if first["valid"] is None:
        return Splits(frame, frame.clear(), frame.clear())
    if config.valid > 0 and first["valid"] == first["test"]:
        raise DataError(
            f"split: no time of {column!r} is left for valid: too many rows share one time; raise the share"
        )
    time, valid_from = pl.col(column), pl.lit(first["valid"], dtype=before["time"].dtype)
    if first["test"] is None:
        return Splits(frame.filter(time < valid_from), frame.filter(time >= valid_from), frame.clear())
    test_from = pl.lit(first["test"], dtype=before["time"].dtype)
    return Splits(
        frame.filter(time < valid_from),
        frame.filter((time >= valid_from) & (time < test_from)),
        frame.filter(time >= test_from),
    )


def _by_column(frame: pl.LazyFrame, config: SplitConfig, column: str) -> Splits:
    values = config.values or {"train": ("train",), "valid": ("valid",), "test": ("test",)}
    listed = {part: [str(value) for value in values.get(part, ())] for part in ("train", "valid", "test")}
    text = pl.col(column).cast(pl.String)
    found = frame.select(text.unique()).collect(engine="streaming")[column].to_list()
    known = [value for part in listed.values() for value in part]
    if strange := sorted(str(value) for value in found if value not in known):
        hint = did_you_mean(strange[0], known)
        raise DataError(f"split: value {strange[0]!r} of column {column!r} stands in no part{hint}")
    if not set(listed["train"]) & set(found):
        raise DataError(f"split: no row of column {column!r} is one of train: {', '.join(listed['train'])}")
    return Splits(*(frame.filter(text.is_in(listed[part])) for part in ("train", "valid", "test")))
