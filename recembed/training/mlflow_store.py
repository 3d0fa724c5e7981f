"""What an MLflow store needs said or checked around it, without importing MLflow."""

import logging
import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

__all__ = [
    "artifact_location",
    "check_sqlite",
    "clean",
    "one_line",
    "page",
    "quiet_loggers",
    "requirement",
    "short_timeouts",
    "sqlite_file",
]

_SQLITE = "sqlite:///"
_LONGEST_NAME = 250

# A dead store costs seconds in place of minutes, and standard output stays the caller's.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite address, or None for other stores."""
    text = unquote(uri.removeprefix(_SQLITE).split("?")[0])
    return Path(text).absolute() if uri.startswith(_SQLITE) and text and text != ":memory:" else None


def artifact_location(uri: str | None) -> str | None:
    """Return where the artifacts of a new experiment go, or None where the store says so itself."""
    file = sqlite_file(uri or "")
    return None if file is None else (file.parent / "mlartifacts").as_uri()


def check_sqlite(uri: str) -> None:
    """Try to write to the file, and take it back: MLflow itself tries a bad file again for more than a minute."""
    file = sqlite_file(uri)
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE recembed_can_write (yes)")
        connection.rollback()


def page(uri: str, experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page, or for a local store the command that serves it."""
    if uri.startswith(("http://", "https://")):
        return f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
    file = sqlite_file(uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(uri if file is None else f'{_SQLITE}{file}')}"


def requirement() -> str:
    """Return the line that installs the package a logged model needs."""
    try:
        return f"recembed=={metadata.version('recembed')}"
    except metadata.PackageNotFoundError:  # run from a source folder
        return "recembed"


@lru_cache(maxsize=4096)
def clean(name: str) -> str:
    """Replace what MLflow refuses in a name.

    >>> clean("auc@user (valid)")
    'auc_user _valid_'
    """
    return re.sub(r"[^\w\-. :/]", "_", name)[:_LONGEST_NAME]


def one_line(error: Exception) -> str:
    """Return the first line of the error at the root of ``error``, cut to 200 characters."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


@contextmanager
def short_timeouts() -> Iterator[None]:
    """Set MLflow's waits and its printing for a while; a variable the user set stays as it is."""
    added = {key: value for key, value in _ENVIRONMENT.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


@contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """Silence these loggers for a while."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
