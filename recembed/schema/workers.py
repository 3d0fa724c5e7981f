"""The threads that columns are read, counted and encoded by."""

import os
from concurrent.futures import ThreadPoolExecutor

__all__ = ["column_workers"]


def column_workers() -> ThreadPoolExecutor:
    """Return a pool of one thread per core that this process may use.

    Columns keep a thread busy, so more of them are no faster, and each holds memory of its own that it has freed.

    >>> with column_workers() as pool:
    ...     list(pool.map(len, ["a", "bc"]))
    [1, 2]
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores)
