"""What becomes of memory that a training step gives back."""

import ctypes
import sys

from recembed.rows.freed_memory import hand_back_memory

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of malloc.h
_MOST, _LARGEST = 2**31 - 1, 2**25


def keep_freed_memory() -> bool:
    """Let this process keep what it frees from now on; what is free already is handed back to the system first.

    Arrays of all nodes come and go in every step; fresh pages for them are a tenth of NGCF's time on Gowalla. What reading
    and building have left lies in pieces too small for such arrays. Of use with glibc alone; returns whether it took
    effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        adjust = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    hand_back_memory()
    return bool(adjust(_MMAP_THRESHOLD, _LARGEST)) and bool(adjust(_TRIM_THRESHOLD, _MOST))
