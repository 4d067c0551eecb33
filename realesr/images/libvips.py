"""Imports pyvips, in one place, and sets it up for reading and writing rows in order.

libvips caches operations and starts a thread per core. Here every file is read and written once, so the cache would
only keep files open; and the cores belong to the network. Each codec works on one row after the other, so that more
threads do not encode faster.
"""

import logging
import os

import pyvips

# What libvips warns of is in the errors and notices already; without a handler, Python would print it to stderr.
logging.getLogger("pyvips").addHandler(logging.NullHandler())
pyvips.cache_set_max(0)
pyvips.concurrency_set(1)

__all__ = ["path_for_vips", "pyvips", "srgb_profile", "vips_message"]


def path_for_vips(path: os.PathLike[str]) -> bytes:
    """Return a file name as libvips expects it: the bytes of the file system, UTF-8 on Windows."""
    return os.fsencode(path)


def vips_message(error: Exception) -> str:
    """Return the last line of libvips' report, which names the cause, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason given"


def srgb_profile() -> bytes:
    """Return the sRGB profile that libvips ships."""
    return bytes(pyvips.Operation.call("profile_load", "srgb"))
