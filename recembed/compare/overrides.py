"""Plain settings laid over plain settings; nothing given is changed."""

from collections.abc import Mapping
from typing import Any

from recembed.errors import ConfigError

__all__ = ["flat", "merged", "with_key"]


def with_key(raw: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return ``raw`` with the value at a dotted key; one word for a kind makes room for its settings.

    Raises:
        ConfigError: the key leads through a value that has no keys.

    >>> with_key({"embeddings": {"table": "hashed"}}, "embeddings.table.probes", 2)
    {'embeddings': {'table': {'kind': 'hashed', 'probes': 2}}}
    """
    first, _, rest = key.partition(".")
    if not rest:
        return dict(raw) | {first: value}
    inner = raw.get(first)
    inner = {} if inner is None else {"kind": inner} if isinstance(inner, str) else inner
    if not isinstance(inner, Mapping):
        raise ConfigError(f"key {key!r}: {first!r} holds {inner!r}, which has no keys")
    return dict(raw) | {first: with_key(inner, rest, value)}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay sections over sections; keys may be dotted. A mapping with ``kind`` takes the old one's place whole.

    >>> base = {"embeddings": {"l2": 0.1, "table": {"kind": "hashed", "probes": 2}}}
    >>> merged(base, {"embeddings": {"table": {"kind": "full"}}, "embeddings.l2": 0.2})
    {'embeddings': {'l2': 0.2, 'table': {'kind': 'full'}}}
    """
    result = dict(base)
    for key, value in over.items():
        if "." in key:
            result = with_key(result, key, value)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and "kind" not in value:
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level of dotted keys.

    >>> flat({"model": {"kind": "fm"}, "seeds": [0, 1]})
    {'model.kind': 'fm', 'seeds': [0, 1]}
    """
    if not isinstance(value, Mapping) or not value:
        return {prefix.removesuffix("."): value}
    return {key: inner for name, part in value.items() for key, inner in flat(part, f"{prefix}{name}.").items()}
