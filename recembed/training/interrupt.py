"""Ctrl-C and SIGTERM ask a training to stop after its step; a second one ends it at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch

from recembed.rows import Processes

__all__ = ["Interrupt"]


class Interrupt:
    """Context in which SIGINT and SIGTERM only set ``asked``; the handlers from before come back on leaving.

    The second signal goes to the handler from before (Ctrl-C: ``KeyboardInterrupt``; SIGTERM: the process ends).
    Outside the main thread python allows no handlers, and nothing changes.

    Of several processes some may get the signal and others not, or at another step: ``asked`` is True only after all
    have heard of it (``agree``), so that they stop after the same step.

    Args:
        together: Whether several processes train together.

    >>> with Interrupt() as interrupt:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     interrupt.asked
    True
    """

    def __init__(self, *, together: bool = False) -> None:
        self.heard = self._agreed = False
        self._together = together
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether training is to stop."""
        return self._agreed if self._together else self.heard

    def agree(self, any_heard: bool) -> None:
        """Take note of whether any process got a signal; all processes call it at the same place."""
        self._agreed |= any_heard

    def asked_by_any(self, processes: Processes) -> bool:
        """Return ``asked``, after asking all processes."""
        if self._together:
            self.agree(bool(processes.total(torch.tensor([float(self.heard)])).item()))
        return self.asked

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
        if self.heard:
            self.__exit__(None, None, None)
            signal.raise_signal(number)
        self.heard = True
