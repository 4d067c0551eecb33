"""Imports pyvips, in one place, and sets it up for reading and writing rows in order.

libvips caches operations and starts a thread per core. Here every file is read and written once, so the cache would
only keep files open; and the cores belong to the network. Each codec works on one row after the other, so that more
threads do not encode faster.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyvips

# What libvips warns of is in the errors and notices already; without a handler, Python would print it to stderr.
logging.getLogger("pyvips").addHandler(logging.NullHandler())
pyvips.cache_set_max(0)
pyvips.concurrency_set(1)

__all__ = ["own_messages", "pyvips", "srgb_profile", "vips_message"]

_READING = threading.RLock()


@contextmanager
def own_messages() -> Iterator[None]:
    """Let one thread at a time read with libvips, whose messages of all threads are in one buffer.

    Reading takes a hundredth of the time of the fastest network, so that waiting for one another costs little.
    """
    with _READING:
        pyvips.vips_lib.vips_error_clear()
        yield


def vips_message(error: Exception) -> str:
    """Return the last line of libvips' report, which names the cause, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason given"


def srgb_profile() -> bytes:
    """Return the sRGB profile that libvips ships."""
    return bytes(pyvips.Operation.call("profile_load", "srgb"))
