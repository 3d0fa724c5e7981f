"""The errors a user can meet, all under one parent, and the nearest-word hint they share."""

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ExportError",
    "MissingPackageError",
    "RecembedError",
    "TrainingError",
    "did_you_mean",
]


class RecembedError(Exception):
    """Bad input of any sort; the message names the value, the field and the fix."""


class ConfigError(RecembedError, ValueError):
    """A setting is unknown, missing or out of range."""


class DataError(RecembedError, ValueError):
    """A file or a column is not what the schema says."""


class CheckpointError(RecembedError):
    """A checkpoint is missing, damaged or belongs to another mapping."""


class ExportError(RecembedError):
    """A bundle is damaged, or what is served would differ from what was trained."""


class TrainingError(RecembedError):
    """Training cannot go on; the message names the step and the table or layer where it began."""


class MissingPackageError(RecembedError, ImportError):
    """An optional package is needed; the message holds the line that installs it."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest choice, else the list of choices.

    >>> did_you_mean("bucket", ["buckets", "rows"])
    "; did you mean 'buckets'?"
    >>> did_you_mean("zzz", ["buckets", "rows"])
    '; expected one of: buckets, rows'
    """
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of: {', '.join(known)}"
