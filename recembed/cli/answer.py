"""What a command answers: one JSON document for machines, tables for people."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Answer", "to_json"]


@dataclass(frozen=True)
class Answer:
    """The outcome of one command.

    Attributes:
        document: What ``--json`` prints.
        shown: What people see instead, a table or line each.
        exit_code: 0, or 2 where the answer is "no".
        last_words: One line for stderr after the rest.
    """

    document: Any
    shown: list["RenderableType"] = field(default_factory=list)
    exit_code: int = 0
    last_words: str = ""


def to_json(value: Any) -> str:
    """Return ``value`` as one JSON document; NaN and infinity become null, frames become lists of rows.

    >>> to_json({"auc": float("nan"), "n": 3, "at": (1, 2.5)})
    '{"auc": null, "n": 3, "at": [1, 2.5]}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dicts"):  # a polars frame
        return [_plain(row) for row in value.to_dicts()]
    if hasattr(value, "tolist"):  # numpy and torch
        return _plain(value.tolist())
    if hasattr(value, "model_dump"):  # pydantic
        return _plain(value.model_dump(mode="json", by_alias=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
