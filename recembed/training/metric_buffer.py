"""Collects metric points and sends them in batches from a thread of its own, so that a step never waits."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

__all__ = ["MetricBuffer", "Point"]


class Point(NamedTuple):
    """One number of one metric; ``time`` is in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


class MetricBuffer:
    """Sends points when ``most`` of them wait or ``seconds`` have passed, one batch under way at a time.

    While a batch is under way further points wait in memory: a slow store delays the page, not the training.

    Args:
        send: Writes a list of points; called in the buffer's thread.
        most: Points that wait at most before a batch goes out.
        seconds: Age after which fewer points go out too, checked when a point comes in.

    >>> sent = []
    >>> buffer = MetricBuffer(sent.extend, most=2)
    >>> buffer.add("loss", 0.5, step=1)
    >>> buffer.close()
    >>> [(point.name, point.value, point.step) for point in sent]
    [('loss', 0.5, 1)]
    """

    def __init__(self, send: Callable[[list[Point]], None], *, most: int = 1000, seconds: float = 2.0) -> None:
        self._send = send
        self._most = most
        self._seconds = seconds
        self._points: list[Point] = []
        self._sent_at = time.monotonic()
        self._under_way: Future[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recembed-metrics")

    def add(self, name: str, value: float, step: int) -> None:
        """Take in one point.

        Raises:
            Exception: what ``send`` raised for an earlier batch.
        """
        self._points.append(Point(name, value, int(time.time() * 1000), step))
        if len(self._points) >= self._most or time.monotonic() - self._sent_at >= self._seconds:
            self._start_batch()

    def flush(self) -> None:
        """Send what waits and return when it is written; raises what ``send`` raised."""
        while self._points or self._under_way is not None:
            if self._under_way is not None:
                under_way, self._under_way = self._under_way, None
                under_way.result()
            self._start_batch()

    def close(self) -> None:
        """Send what waits and end the thread; raises what ``send`` raised."""
        try:
            self.flush()
        finally:
            self._thread.shutdown()

    def abandon(self) -> None:
        """Drop what waits and end the thread without waiting for it."""
        self._points.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start_batch(self) -> None:
        if self._under_way is not None:
            if not self._under_way.done():
                return
            done, self._under_way = self._under_way, None
            done.result()
        if self._points:
            points, self._points = self._points, []
            self._sent_at = time.monotonic()
            self._under_way = self._thread.submit(self._send, points)
