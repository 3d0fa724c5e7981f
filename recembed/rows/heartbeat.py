"""Signs of life: a process that works alone renews a note, and those that wait for it see whether it goes on."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Notes", "beating", "wait_while_it_beats"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.05


class Notes(Protocol):
    """What ``torch.distributed.Store`` offers: words that every process can read."""

    def set(self, key: str, value: str) -> None:
        """Leave a note."""

    def get(self, key: str) -> bytes:
        """Read a note."""

    def check(self, keys: list[str]) -> bool:
        """Say whether the notes are there."""


@contextmanager
def beating(notes: Notes, key: str, seconds: float) -> Iterator[None]:
    """Renew the note ``key`` every few seconds while the body runs, and leave ``key/done`` after it, failed or not.

    A thread does it: it goes on during long calls, and stops with the process.
    """
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(seconds):
            count += 1
            try:
                notes.set(f"{key}/beat", str(count))
            except RuntimeError:  # the keeper of the notes is gone: the others notice that by themselves
                return

    thread = threading.Thread(target=beat, name="recembed-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        notes.set(f"{key}/done", "1")


def wait_while_it_beats(notes: Notes, key: str, timeout: float, who: str) -> None:
    """Wait until ``key/done`` is there, saying every ``timeout`` seconds that ``who`` is waited for.

    Raises:
        TimeoutError: no sign of life for ``timeout`` seconds.
    """
    began = seen = said = time.monotonic()
    last = b""
    while not notes.check([f"{key}/done"]):
        now = time.monotonic()
        beat = notes.get(f"{key}/beat") if notes.check([f"{key}/beat"]) else b""
        if beat != last:
            last, seen = beat, now
        if now - seen > timeout:
            raise TimeoutError(f"{who} has given no sign of life for {timeout:g} seconds")
        if now - said > timeout:
            _log.warning("%s has been at work alone for %.0f seconds, and is alive; the others wait", who, now - began)
            said = now
        time.sleep(_LOOK_SECONDS)
