"""``EncodedData`` → shuffled ``Batch`` objects: one slice per process, exact position, id dropout."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

from recembed.batch import Batch
from recembed.data.dropout import IdDropout
from recembed.data.encoded import EncodedData
from recembed.data.order import RowOrder
from recembed.errors import CheckpointError, ConfigError

__all__ = ["Loader"]


class Loader:
    """Batches of one split; iterating once is one epoch.

    ``batch_size`` is the global batch. Its rows and its id dropout depend on ``seed`` and ``epoch`` only, never on
    ``world_size``: process ``rank`` takes the rows ``n * rank // world_size`` up to ``n * (rank + 1) // world_size``
    of each global batch of ``n`` rows. All processes have the same number of batches. A last batch with fewer rows
    than processes is left out when shuffling (training); else some processes get an empty batch (evaluation).

    Data of more than ``window`` rows are shuffled by blocks: blocks of ``window // 256`` neighbouring rows in random
    order, then all rows of the blocks that make up one window. Up to ``window`` rows the order is a full permutation.
    Of mapped data no more than about a window is held in memory.

    Args:
        data: Encoded rows.
        batch_size: Rows per global batch.
        shuffle: New order each epoch; else the order of the data.
        seed: Seed of order and id dropout.
        rank, world_size: This process, and the number of processes.
        drop_last: Leave out a last batch of fewer than ``batch_size`` rows.
        id_dropout: Replace a share of the ids by their out-of-vocabulary bucket (training only).
        window: Rows that are shuffled together.
        prefetch: Batches made ahead by a background thread; 0 makes them in this thread.

    Raises:
        ConfigError: an argument is out of range, or no batch is left.
    """

    def __init__(
        self,
        data: EncodedData,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        id_dropout: bool = False,
        window: int = 1 << 20,
        prefetch: int = 2,
    ) -> None:
        _check(batch_size, rank, world_size, window, prefetch)
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.rank, self.world_size, self.prefetch = rank, world_size, prefetch
        self._order = RowOrder(len(data), shuffle=shuffle, seed=seed, window=window)
        self._dropout = IdDropout(data, seed) if id_dropout else None
        whole, rest = divmod(len(data), batch_size)
        left_out = drop_last or (shuffle and rest < world_size)
        self._steps = whole + (rest > 0 and not left_out)
        if self._steps == 0:
            raise ConfigError(f"{len(data)} rows make no batch of batch_size = {batch_size}; take a smaller batch_size")
        self._epoch = self._step = self._first = 0

    def __len__(self) -> int:
        """Return the batches of an epoch, the same on every process."""
        return self._steps

    @property
    def epoch(self) -> int:
        """The epoch that the next or the running iteration yields."""
        return self._epoch

    def global_rows(self, step: int) -> int:
        """Return the rows of global batch ``step``: what a mean over all processes divides by."""
        return min(self.batch_size, len(self.data) - step * self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one, from its start unless ``resume`` left this very epoch at a later step."""
        if epoch != self._epoch:
            self._epoch, self._step, self._first = epoch, 0, 0

    def state(self) -> dict[str, int]:
        """Return the exact position: the next batch is ``step`` of ``epoch``."""
        return {
            "epoch": self._epoch,
            "step": self._step,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "rows": len(self.data),
            "window": self._order.window,
        }

    def resume(self, state: dict[str, int]) -> None:
        """Go on from ``state``; the rest of the epoch is bit for bit what it would have been.

        Raises:
            CheckpointError: the state belongs to other rows, or to another seed, batch size or window.
        """
        for name, mine in self.state().items():
            if name not in ("epoch", "step") and state.get(name) != mine:
                raise CheckpointError(
                    f"cannot resume the data position: {name} was {state.get(name)}, now it is {mine}; "
                    f"give the same {name}, or start anew"
                )
        self._epoch, self._step, self._first = state["epoch"], state["step"], state["step"]

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch (after ``resume``: the rest of it), then go on to the next epoch."""
        first, self._first = self._first, 0
        self._step = first
        batches = self._batches(self._epoch, first)
        for batch in _ahead(batches, self.prefetch) if self.prefetch else batches:
            self._step += 1
            yield batch
        self._epoch, self._step = self._epoch + 1, 0

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        rows_of = self._order.batches(epoch, self.batch_size, first)
        for step in range(first, self._steps):
            rows = next(rows_of)
            low, high = (len(rows) * part // self.world_size for part in (self.rank, self.rank + 1))
            batch = self.data.batch(rows[low:high])
            if self._dropout is not None:
                self._dropout(batch, rows, low, epoch, step)
            if (step + 1) * self.batch_size // self._order.window > step * self.batch_size // self._order.window:
                self.data.release()  # this window's rows are done with until the next epoch
            yield batch
        self.data.release()


def _check(batch_size: int, rank: int, world_size: int, window: int, prefetch: int) -> None:
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank = {rank}: expected 0..{world_size - 1} (world_size {world_size})")
    if batch_size < world_size:
        raise ConfigError(f"batch_size = {batch_size}: expected at least one row for each of {world_size} processes")
    if window < 1:
        raise ConfigError(f"window = {window}: expected at least 1 row")
    if prefetch < 0:
        raise ConfigError(f"prefetch = {prefetch}: expected 0 or more batches")


def _ahead(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    """Yield from ``batches``, made by a thread that runs at most ``size`` ahead; an error in it is raised here."""
    ready: queue.Queue[Any] = queue.Queue(size)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:  # the consumer raises it
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="recembed-loader")
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while not ready.empty():
            ready.get_nowait()
        thread.join()
