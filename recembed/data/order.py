"""The order in which an epoch visits the rows."""

from collections.abc import Iterator

import numpy as np

__all__ = ["RowOrder", "order_quality"]

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


def order_quality(rows: np.ndarray) -> dict[str, float]:
    """Measure how far an order is from that of the file.

    ``rank_correlation`` (Spearman's) of place and row is 1 in file order and about 0 when shuffled; a share
    ``neighbours`` of the steps goes to the next row; ``spread`` is the mean distance of rows that follow each other, as
    a share of the third of all rows that an even shuffle has.

    Args:
        rows: int64 ``[N]``, each of ``0 .. N - 1`` once, in the order of training; N at least 2.

    >>> order_quality(np.arange(1000))["rank_correlation"], order_quality(np.arange(1000)[::-1])["neighbours"]
    (1.0, 0.0)
    """
    steps = np.diff(rows)
    centre = (len(rows) - 1) / 2
    correlation = float(
        ((np.arange(len(rows)) - centre) * (rows - centre)).sum() / (centre * (centre + 1) * len(rows) / 3)
    )
    spread = float(np.abs(steps).mean() / (len(rows) / 3))
    return {"rank_correlation": correlation, "neighbours": float((steps == 1).mean()), "spread": spread}
