"""A first schema, proposed from the types and the content of a frame.

The rules, in order; a column takes the first that fits:

1. The label is the column asked for, else the first called ``label``, ``click``, ``clicked``, ``is_click``,
   ``target`` or ``rating``. Where its values are not 0/1, positive means at least four fifths of the greatest.
2. The timestamp is the first column called ``timestamp``, ``time``, ``ts``, ``datetime``, ``event_time``,
   ``date`` or ``t_dat``, else the first of a date type. Other dates are left out.
3. Lists of ids are a sequence where the name speaks of order (``history``, ``sequence``, ``session``, ``items``,
   ``clicks``, ``last``), else a bag. Lists of decimal numbers of one length are a numeric vector.
4. Decimal numbers are numeric.
5. Integers are an id where the name ends in ``id``, ``item``, ``code`` or ``_no`` or is like ``C14``, numeric where it is like ``I3`` or
   holds a word of quantity (``age``, ``year``, ``price``, ``count``, …) or they have over 200 values, else an id.
6. Text is a bag where one of ``|``, ``;``, ``,`` or a space splits at least a fifth of the cells into few words that
   recur (at most half as many as there are cells of their own). Long text that hardly recurs (names, descriptions)
   is left out, any other is an id.
7. The roles go to the first ids called ``user``, ``uid``, ``visitor``, ``customer`` and ``item``, ``iid``, ``movie``,
   ``product``, ``article``, ``book``, ``ad`` (with or without ``id``). A sequence of ids of the item's type shares
   the item's table.
"""

import re

import polars as pl

from recembed.errors import DataError, did_you_mean
from recembed.schema.feature import Feature, Label, Schema

__all__ = ["infer_schema"]

_LABELS = ("label", "click", "clicked", "is_click", "target", "rating")
_TIMES = ("timestamp", "time", "ts", "datetime", "event_time", "date", "t_dat")
_ORDERED = re.compile(r"hist|seq|session|items|clicks|last")
_ID_NAME = re.compile(r"(id|ids|item|code|_no|^c\d+)$")
_QUANTITY = re.compile(
    r"^i\d+$|(^|_)(age|year|price|count|cnt|num|number|amount|quantity|duration|length|size|width|height|score|views)(_|$)"
)
_ROLES = {
    "user": re.compile(r"^(user|uid|visitor|customer|member)(_?id)?$"),
    "item": re.compile(r"^(item|iid|movie|product|article|book|ad|app|song|news)(_?id)?$"),
}
_SEPARATORS = ("|", ";", ",", " ")
_MANY_VALUES = 200


def infer_schema(frame: pl.LazyFrame | pl.DataFrame, *, label: str | None = None, max_rows: int = 100_000) -> Schema:
    """Propose a schema from the first ``max_rows`` rows of ``frame``, by the rules at the head of this file.

    Args:
        frame: What ``recembed.sources.scan`` opened, or rows in memory.
        label: The target column, where its name does not tell.
        max_rows: Rows to look at.

    Raises:
        DataError: there are no rows, or no column ``label``.

    >>> genres = ["war|drama", "drama", "war", "drama|war"]
    >>> frame = pl.DataFrame({"user_id": range(4), "price": 0.5, "genres": genres, "click": 1})
    >>> print(infer_schema(frame).to_yaml(), end="")
    features:
    - name: user_id
      role: user
    - name: price
      kind: numeric
    - name: genres
      kind: bag
      separator: '|'
    labels:
    - name: click
    """
    sample = frame.lazy().head(max_rows).collect()
    if sample.height == 0:
        raise DataError("the source has no rows; a schema cannot be proposed from nothing")
    if label is not None and label not in sample.columns:
        raise DataError(f"label column {label!r} is missing" + did_you_mean(label, sample.columns))
    target = label or _first_named(sample, _LABELS)
    timestamp = _find_timestamp(sample, target)
    features = [
        feature
        for column in sample.iter_columns()
        if column.name not in (target, timestamp) and (feature := _feature_of(column)) is not None
    ]
    labels = () if target is None else (_label_of(sample[target]),)
    return Schema(features=tuple(_with_roles(features, sample)), labels=labels, timestamp=timestamp)


def _first_named(sample: pl.DataFrame, names: tuple[str, ...]) -> str | None:
    by_lower = {column.lower(): column for column in reversed(sample.columns)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _find_timestamp(sample: pl.DataFrame, target: str | None) -> str | None:
    dates = [column.name for column in sample.iter_columns() if column.dtype in (pl.Date, pl.Datetime)]
    found = _first_named(sample, _TIMES) or (dates[0] if dates else None)
    return None if found == target else found


def _label_of(column: pl.Series) -> Label:
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise DataError(f"label column {column.name!r} is {column.dtype}; expected 0/1 or a number")
    values = column.cast(pl.Float64).drop_nulls()
    if values.is_in([0.0, 1.0]).all():
        return Label(name=column.name)
    return Label(name=column.name, positive_from=0.8 * float(values.max()))  # type: ignore[arg-type]


def _feature_of(column: pl.Series) -> Feature | None:
    name, dtype = column.name, column.dtype
    if isinstance(dtype, pl.List | pl.Array):
        return _list_feature(column)
    if dtype.is_float() or dtype.is_decimal():
        return Feature(name=name, kind="numeric")
    if dtype.is_integer():
        return Feature(name=name, kind="numeric" if _is_quantity(column) else "categorical")
    if dtype == pl.String:
        return _text_feature(column)
    if dtype in (pl.Boolean, pl.Categorical, pl.Enum):
        return Feature(name=name)
    return None


def _list_feature(column: pl.Series) -> Feature | None:
    inner = column.dtype.inner  # type: ignore[attr-defined]
    if inner.is_integer() or inner == pl.String:
        return Feature(name=column.name, kind="sequence" if _ORDERED.search(column.name.lower()) else "bag")
    if isinstance(column.dtype, pl.Array):
        lengths = [column.dtype.size] if inner.is_numeric() else []
    else:
        lengths = column.list.len().drop_nulls().unique().to_list() if inner.is_numeric() else []
    return Feature(name=column.name, kind="numeric", width=lengths[0]) if len(lengths) == 1 and lengths[0] > 1 else None


def _is_quantity(column: pl.Series) -> bool:
    name = column.name.lower()
    if _QUANTITY.search(name):
        return True
    if _ID_NAME.search(name) or any(pattern.match(name) for pattern in _ROLES.values()):
        return False
    return column.n_unique() > _MANY_VALUES


def _text_feature(column: pl.Series) -> Feature | None:
    cells = column.drop_nulls().unique()
    for separator in _SEPARATORS:
        split = cells.str.split(separator)
        holding = _mean(column.drop_nulls().str.contains(separator, literal=True))
        if holding >= 0.2 and 2 * split.explode(empty_as_null=True).n_unique() <= len(cells):
            return Feature(name=column.name, kind="bag", separator=separator)
    length, spaced = (_mean(values) for values in (cells.str.len_chars(), cells.str.contains(" ", literal=True)))
    is_prose = len(cells) > _MANY_VALUES and length > 30 and spaced > 0.5
    return None if is_prose else Feature(name=column.name)


def _mean(values: pl.Series) -> float:
    return float(values.cast(pl.Float64).to_numpy().mean()) if len(values) else 0.0


def _with_roles(features: list[Feature], sample: pl.DataFrame) -> list[Feature]:
    holders: dict[str, str] = {}
    for feature in features:
        for role, pattern in _ROLES.items():
            if feature.kind == "categorical" and role not in holders and pattern.match(feature.name.lower()):
                holders[role] = feature.name
    by_name = {name: role for role, name in holders.items()}
    item = holders.get("item")
    return [_placed(feature, by_name, item, sample) for feature in features]


def _placed(feature: Feature, roles: dict[str, str], item: str | None, sample: pl.DataFrame) -> Feature:
    if feature.name in roles:
        return feature.model_copy(update={"role": roles[feature.name]})
    dtype = sample.schema[feature.name]
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else None
    if feature.kind == "sequence" and item is not None and inner == sample.schema[item]:
        return feature.model_copy(update={"shares": item})
    return feature
