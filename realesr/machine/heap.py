"""Makes the most of a limit on this process's addresses, `ulimit -v`: threads share the C library's one heap."""

import contextlib
import ctypes
import sys

_M_ARENA_MAX = -8
"""Source: glibc, malloc.h."""


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
