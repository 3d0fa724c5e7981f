"""Ctrl-C and SIGTERM ask a training to stop after its step; a second one ends it at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupt"]


class Interrupt:
    """Context in which SIGINT and SIGTERM only set ``asked``; the handlers from before come back on leaving.

    The second signal goes to the handler from before (Ctrl-C: ``KeyboardInterrupt``; SIGTERM: the process ends).
    Outside the main thread python allows no handlers, and nothing changes.

    >>> with Interrupt() as interrupt:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     interrupt.asked
    True
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.__exit__(None, None, None)
            signal.raise_signal(number)
        self.asked = True
