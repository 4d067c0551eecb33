"""Imports pyvips, in one place, and sets it up for reading and writing rows in order.

libvips caches operations and starts a thread per core. Here every file is read and written once, so the cache would
only keep files open; and the cores belong to the network. Each codec works on one row after the other, so that more
threads do not encode faster.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyvips
import pyvips.error
import pyvips.gvalue

from realesr.errors import InputError

# What libvips warns of is in the errors and notices already; without a handler, Python would print it to stderr.
logging.getLogger("pyvips").addHandler(logging.NullHandler())
pyvips.cache_set_max(0)
pyvips.concurrency_set(1)


def _as_text(pointer: Any) -> str:
    """Return the text that a C string of libvips holds; bytes that are no UTF-8 become "\\xff" and the like."""
    if pointer == pyvips.ffi.NULL:
        return "NULL"
    stored = pyvips.ffi.string(pointer)
    return stored.decode("utf-8", "backslashreplace") if isinstance(stored, bytes) else str(stored)


# libvips' warnings, errors and metadata quote bytes of the file. pyvips (3.2) takes them for UTF-8, by a function that
# each of these modules has a name for: the first logs within a callback, whose traceback would go to stderr.
for _module in (pyvips, pyvips.error, pyvips.gvalue):
    _module._to_string = _as_text

__all__ = ["EncoderTurn", "own_messages", "pyvips", "srgb_profile", "vips_message"]

_TURN = threading.Lock()
_reading = threading.local()
_TEMPORARY_FILE_FAILED = ("wbuffer_write: write failed", 'VipsImage: unable to write to "')
"""What libvips says where the file in TMPDIR that holds a decoded image cannot be made or written."""


@contextmanager
def own_messages(path: Path | None = None) -> Iterator[None]:
    """Let one thread at a time read with libvips, whose messages of all threads are in one buffer.

    Reading takes a hundredth of the time of the fastest network, so that waiting for one another costs little.

    Raises:
        InputError: libvips has no room for the pixels of the file at `path` on the disk of temporary files.
    """
    if getattr(_reading, "is_inside", False):
        yield
        return
    with _TURN:
        try:
            _reading.is_inside = True
            pyvips.vips_lib.vips_error_clear()
            yield
        except pyvips.Error as error:
            if any(words in str(error) for words in _TEMPORARY_FILE_FAILED):
                raise InputError(
                    f"{path or 'the image'} cannot be decoded: libvips keeps large images that it turns in a temporary "
                    f"file, which cannot be written to {os.environ.get('TMPDIR') or '/tmp'} "
                    f"({vips_message(error).removeprefix('system error: ')}); make room there, or let TMPDIR name "
                    "another folder"
                ) from error
            raise
        finally:
            _reading.is_inside = False


class EncoderTurn:
    """The turn of an encoder that is about to fail: only then does it write messages, and nobody may be reading."""

    def __init__(self) -> None:
        self._is_taken = False
        self._lock = threading.Lock()

    def take(self) -> None:
        """Wait until no thread reads, and keep it so; any thread may call it, more than once."""
        with self._lock:
            if not self._is_taken:
                _TURN.acquire()
                self._is_taken = True
                pyvips.vips_lib.vips_error_clear()

    def end(self) -> None:
        """Let others read, once the encoder has failed and its message has been fetched."""
        with self._lock:
            if self._is_taken:
                self._is_taken = False
                _TURN.release()


def vips_message(error: Exception) -> str:
    """Return the last line of libvips' report, which names the cause, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason given"


def srgb_profile() -> bytes:
    """Return the sRGB profile that libvips ships."""
    return bytes(pyvips.Operation.call("profile_load", "srgb"))
