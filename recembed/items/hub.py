"""Models of the Hugging Face hub: found in its cache or fetched; the only file that imports ``huggingface_hub``."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from recembed.errors import ConfigError, MissingPackageError

__all__ = ["hub_folder", "quiet"]


def hub_folder(name: str, revision: str | None, package_line: str | None = None) -> Path:
    """Return the folder of a model of the hub, fetched where it is not on this machine yet.

    Raises:
        ConfigError: it is not there and cannot be fetched; the message holds the line that gets it.
    """
    line = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    advice = f"{package_line}, or {line}" if package_line else line
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingPackageError(
            f"model {name!r} is no folder here, and the hub needs huggingface-hub: pip install 'recembed[text]'"
        ) from error
    for local in (True, False):
        with contextlib.suppress(Exception), quiet():  # the hub's client raises many kinds
            return Path(snapshot_download(name, revision=revision, local_files_only=local))
    raise ConfigError(
        f"model {name!r} is neither a folder here nor in the hub's cache, and cannot be fetched: {advice}"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's bars and warnings to itself."""
    from transformers.utils import logging as words

    shown = words.is_progress_bar_enabled()
    words.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if shown:
            words.enable_progress_bar()
