"""Sets up the C library's memory for a command: what a limit on addresses allows, and what goes back to the system."""

import contextlib
import ctypes
import sys

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Source: glibc, malloc.h."""
_LARGE_BYTES = 4 << 20


def share_one_heap() -> None:
    """Keep the C library from reserving 64 MB of addresses for each thread, where a limit counts those.

    Source: mallopt(3), M_ARENA_MAX; getrlimit(2). It holds for the whole process: for commands, never for a library.
    """
    if sys.platform != "linux":
        return
    import resource

    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def return_large_memory() -> None:
    """Have the C library give memory of 4 MB and more back to the system as soon as it is freed.

    It would keep pieces of up to 32 MB for itself once one of that size has been freed: of a photo of 4,000 px across,
    half a gigabyte at the end of its strips. Source: mallopt(3), M_MMAP_THRESHOLD. It holds for the whole process: for
    commands, never for a library.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
