"""Memory that was freed and is still held: handed back before something large is allocated."""

import ctypes
import sys

__all__ = ["hand_back_memory"]


def hand_back_memory() -> bool:
    """Hand back to the system what this process has freed; return whether anything was.

    glibc takes arrays below 32 MB out of one heap and keeps their holes: what reading, counting and building leave there
    is too small for a large table, which would come on top. Of use with glibc alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):  # another C library
        return False
