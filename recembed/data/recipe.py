"""From the tables of a data set to one frame of rows to learn from, by a declared recipe."""

import polars as pl
from pydantic import BaseModel, ConfigDict

__all__ = ["NextItem", "Recipe", "build_frame"]


class NextItem(BaseModel):
    """Turns each whole history into rows of "the items before" (``history``) and "the next one" (``item_id``).

    Attributes:
        column: The list column of whole histories, oldest first.
        holdout: 2 marks the last item ``test`` and the one before ``valid``; 0 marks all ``train``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    holdout: int = 0


class Recipe(BaseModel):
    """How tables become one frame; the steps are taken in the order of the attributes.

    Attributes:
        parts: The table with the rows, or one table per value of ``part_column``.
        part_column: The column that says the part.
        rename: Columns to rename.
        lists: Columns (of items or lists of them) joined into one list, ``items``.
        next_item: Histories to rows; tables without its column stay as they are.
        combine: New text columns, each of several columns joined by ``-``.
        join: Attribute tables and the columns they are joined on; columns already there are not taken again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: str | dict[str, str]
    part_column: str = "split"
    rename: dict[str, str] = {}
    lists: list[str] = []
    next_item: NextItem | None = None
    combine: dict[str, list[str]] = {}
    join: dict[str, list[str]] = {}

    @property
    def tables_needed(self) -> list[str]:
        """The tables the frame is made of."""
        rows = [self.parts] if isinstance(self.parts, str) else list(self.parts.values())
        return rows + list(self.join)


def build_frame(recipe: Recipe, tables: dict[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Follow ``recipe``, lazily.

    >>> recipe = Recipe(parts="sessions", next_item=NextItem(column="items", holdout=2))
    >>> build_frame(recipe, {"sessions": pl.LazyFrame({"items": [[5, 6, 7, 8]]})}).collect().rows()
    [([5], 6, 'train'), ([5, 6], 7, 'valid'), ([5, 6, 7], 8, 'test')]
    """
    if isinstance(recipe.parts, str):
        frame = _rows_of(recipe, tables[recipe.parts])
    else:
        frame = pl.concat(
            [
                _rows_of(recipe, tables[table]).with_columns(pl.lit(part).alias(recipe.part_column))
                for part, table in recipe.parts.items()
            ],
            how="diagonal_relaxed",
        )
    for name, columns in recipe.combine.items():
        frame = frame.with_columns(pl.concat_str(columns, separator="-").alias(name))
    for table, on in recipe.join.items():
        frame = _join(frame, tables[table], on)
    return frame


def _rows_of(recipe: Recipe, table: pl.LazyFrame) -> pl.LazyFrame:
    table = table.rename(recipe.rename, strict=False)
    if recipe.lists:
        table = table.select(pl.exclude(recipe.lists), pl.concat_list(recipe.lists).alias("items"))
    step = recipe.next_item
    if step is None or step.column not in table.collect_schema().names():
        return table
    return _next_items(table, step, recipe.part_column)


def _next_items(table: pl.LazyFrame, step: NextItem, part_column: str) -> pl.LazyFrame:
    items, place = pl.col(step.column), pl.col("__place__")
    from_end = items.list.len().cast(pl.Int64) - place
    part = (
        pl.when(from_end == 1).then(pl.lit("test")).when(from_end == 2).then(pl.lit("valid")).otherwise(pl.lit("train"))
    )
    marked = [part.alias(part_column)] if step.holdout else []
    return (
        table.with_columns(pl.int_ranges(1, items.list.len()).alias("__place__"))
        .explode("__place__", empty_as_null=False)
        .with_columns(items.list.head(place).alias("history"), items.list.get(place).alias("item_id"), *marked)
        .drop(step.column, "__place__")
    )


def _join(frame: pl.LazyFrame, table: pl.LazyFrame, on: list[str]) -> pl.LazyFrame:
    types, taken = table.collect_schema(), frame.collect_schema()
    columns = [pl.col(name).cast(taken[name]) for name in on]
    columns += [pl.col(name) for name in types.names() if name not in taken]
    return frame.join(table.select(columns), on=on, how="left", maintain_order="left")
