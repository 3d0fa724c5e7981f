"""Items → vectors, a batch at a time: bad items are masked, and a batch that is too large is halved.

While one batch is encoded, the next one is prepared by another thread.
Axes: ``n`` items of a batch, ``D`` width.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from recembed.errors import DataError
from recembed.items.faults import Faults
from recembed.items.towers import Tower

__all__ = ["BatchEncoder", "progress_bar"]

_log = logging.getLogger("recembed.items")


class BatchEncoder:
    """Encode items with one tower.

    Args:
        tower: The encoder.
        source: What the items are, for messages: ``text`` or ``image``.
        batch_size: Items per step; it shrinks when memory runs out, and stays small.
        faults: Told of every item that is masked.
    """

    def __init__(self, tower: Tower, source: str, *, batch_size: int, faults: Faults) -> None:
        self.tower, self.source, self.batch_size, self.faults = tower, source, batch_size, faults

    def encode(
        self, count: int, item: Callable[[int], Any], name: Callable[[int], Any]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the places of encoded items, int64 ``[n]``, and their vectors, float32 ``[n, D]``.

        Args:
            count: Number of items.
            item: The item at a place.
            name: Its raw id, for messages.

        Raises:
            DataError: memory does not suffice for a single item, or ``faults`` stops at a bad one.
        """
        starts = iter(range(0, count, size := self.batch_size))
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self._prepare, range(0), item, name)
            for start in (*starts, None):
                ready = coming.result()
                if start is not None:
                    coming = thread.submit(self._prepare, range(start, min(start + size, count)), item, name)
                yield from self._forward(ready, name)

    def _prepare(self, places: range, item: Callable[[int], Any], name: Callable[[int], Any]) -> list[tuple[int, Any]]:
        ready = []
        for place in places:
            try:
                ready.append((place, self.tower.prepare(item(place))))
            except DataError as error:
                self.faults.broken(self.source, str(error), [name(place)])
        return ready

    def _forward(
        self, ready: list[tuple[int, Any]], name: Callable[[int], Any]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        waiting = [ready] if ready else []
        while waiting:
            now = waiting.pop(0)
            if len(now) > self.batch_size:
                waiting = [now[i : i + self.batch_size] for i in range(0, len(now), self.batch_size)] + waiting
                continue
            try:
                vectors = np.asarray(self.tower.encode([prepared for _, prepared in now]), np.float32)
            except Exception as error:  # whatever a model raises
                waiting = self._smaller(now, error, name) + waiting
                continue
            places = np.array([place for place, _ in now])
            finite = np.isfinite(vectors).all(axis=1)
            if not finite.all():
                self.faults.broken(self.source, "the encoder gave NaN or infinity", [name(p) for p in places[~finite]])
            yield places[finite], vectors[finite]

    def _smaller(self, now: list[Any], error: Exception, name: Callable[[int], Any]) -> list[list[Any]]:
        """Return the batch in two halves; a single item is masked, unless it was memory that did not suffice."""
        if _out_of_memory(error):
            if len(now) == 1:
                raise DataError(
                    f"{self.source}: memory does not suffice to encode item {name(now[0][0])!r} alone ({_line(error)}); "
                    "choose device: cpu, precision: bfloat16 or a smaller model"
                ) from error
            self.batch_size = max(1, len(now) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            _log.warning("%s: out of memory; going on with batch_size %d", self.source, self.batch_size)
        elif len(now) == 1:
            self.faults.broken(self.source, "the encoder failed", [name(now[0][0])], why=_line(error))
            return []
        half = (len(now) + 1) // 2
        return [now[:half], now[half:]]


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def _line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def progress_bar(shown: bool | None = None) -> Progress:
    """Return a bar on the standard error stream; None shows it on a terminal only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not (sys.stderr.isatty() if shown is None else shown),
    )
