"""Gives memory that has been freed back to the system, where the C library keeps it."""

import ctypes
import functools
import sys
from collections.abc import Callable


def give_back() -> None:
    """Return free pages inside the heap to the system; does nothing without glibc.

    glibc gives back only the heap's end: arrays of ever other sizes leave holes, and the heap grows. Source:
    malloc_trim(3).
    """
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    if sys.platform != "linux":
        return lambda _: None
    trim: Callable[[int], object] = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
    return trim
