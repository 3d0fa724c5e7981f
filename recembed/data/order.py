"""The order in which an epoch visits the rows."""

from collections.abc import Iterator

import numpy as np

__all__ = ["RowOrder"]

_BLOCKS_PER_WINDOW = 256


class RowOrder:
    """Row positions batch by batch, the same for every number of processes.

    Args:
        rows: Rows of the data.
        shuffle: Random order, else ``0, 1, 2, …``.
        seed: With the epoch, decides the order.
        window: Rows shuffled together; data of at most ``window`` rows are permuted as a whole.
    """

    def __init__(self, rows: int, *, shuffle: bool, seed: int, window: int) -> None:
        self.rows, self.shuffle, self.seed, self.window = rows, shuffle, seed, window
        self._block = max(rows, 1) if rows <= window else max(window // _BLOCKS_PER_WINDOW, 1)

    def batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[np.ndarray]:
        """Yield int64 positions of each batch from batch ``first`` on; the last may be shorter."""
        start = first * batch_size
        waiting = np.empty(0, np.int64)
        for piece in self._pieces(epoch, start):
            waiting = np.concatenate([waiting, piece])
            whole = len(waiting) // batch_size * batch_size
            yield from waiting[:whole].reshape(-1, batch_size)
            waiting = waiting[whole:]
        if len(waiting):
            yield waiting

    def _pieces(self, epoch: int, start: int) -> Iterator[np.ndarray]:
        """Yield the order from position ``start`` on, a window at a time."""
        if not self.shuffle:
            for low in range(start, self.rows, self.window):
                yield np.arange(low, min(low + self.window, self.rows))
            return
        blocks = np.random.default_rng([self.seed, epoch]).permutation(-(-self.rows // self._block))
        per_window = max(self.window // self._block, 1)
        done = 0
        for place, low in enumerate(range(0, len(blocks), per_window)):
            chosen = blocks[low : low + per_window]
            starts = chosen * self._block
            size = int((np.minimum(starts + self._block, self.rows) - starts).sum())
            if done + size > start:
                rows = (starts[:, None] + np.arange(self._block)).reshape(-1)
                rows = np.random.default_rng([self.seed, epoch, place]).permutation(rows[rows < self.rows])
                yield rows[max(start - done, 0) :]
            done += size
