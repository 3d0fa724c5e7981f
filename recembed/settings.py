"""Settings read by pydantic: one word for a kind, and mistakes explained in one line."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from recembed.errors import ConfigError, did_you_mean

__all__ = ["explain_validation", "parse_kind"]

Settings = TypeVar("Settings", bound=BaseModel)


def parse_kind(raw: Any, kinds: Mapping[str, type[Settings]], what: str) -> Settings:
    """Turn one word, or a mapping with ``kind``, into the settings of that kind; settings stay as they are.

    Args:
        raw: What stands in the config.
        kinds: Settings class by the word that names it.
        what: What the word names, for errors.

    Raises:
        ConfigError: unknown kind or key (the nearest is offered), or a value out of range.
    """
    if isinstance(raw, BaseModel):  # also a record of the user's own
        return cast(Settings, raw)
    settings = {"kind": raw} if isinstance(raw, str) else dict(raw) if isinstance(raw, dict) else {}
    kind = str(settings.get("kind"))
    if kind not in kinds:
        raise ConfigError(f"{what} {kind!r} is not known" + did_you_mean(kind, kinds))
    try:
        return kinds[kind].model_validate(settings)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, f"{what} {kind!r}", kinds[kind])) from None


def explain_validation(error: ValidationError, what: str, model: type[BaseModel]) -> str:
    """Return one line for the first mistake pydantic found: place, value, what was expected, nearest key."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or what
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return f"{what}: {place}: unknown key {str(first['loc'][-1])!r}" + did_you_mean(str(first["loc"][-1]), known)
    if first["type"] == "missing":
        return f"{what}: {place}: required, but not given"
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] == "value_error" else f" = {first['input']!r}"
    return f"{what}: {place}{shown}: {message}" if place != what else f"{what}: {message}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    fields = model
    for part in location:
        field = None if isinstance(part, int) else _named(fields).get(part)
        if field is None:
            continue
        inner = _record_in(field.annotation)
        if inner is None:
            break
        fields = inner
    return list(_named(fields))


def _named(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _record_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _record_in(argument)
        if found is not None:
            return found
    return None
