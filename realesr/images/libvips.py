"""Imports pyvips, in one place, and sets it up for reading and writing rows in order.

libvips caches operations and starts a thread per core. Here every file is read and written once, so the cache would
only keep files open; and the cores belong to the network. Each codec works on one row after the other, so that more
threads do not encode faster. Other code in the process may want the cache and the threads for images of its own: they
are off only while a file is read (`own_messages`) or an encoder needs it (`own_settings`).
"""

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
from realesr.machine.held_signals import signals_held
from realesr.machine.leaving import native_call

__all__ = ["EncoderTurn", "own_messages", "own_settings", "pyvips", "srgb_profile", "vips_message"]

_TURN = threading.Lock()
_reading = threading.local()
_TEMPORARY_FILE_FAILED = ("wbuffer_write: write failed", 'VipsImage: unable to write to "')
"""What libvips says where the file in TMPDIR that holds a decoded image cannot be made or written."""

_TEXT_MODULES: tuple[Any, ...] = (pyvips, pyvips.error, pyvips.gvalue)
"""Modules of pyvips (3.2) that turn libvips' warnings, errors and metadata into text, each by a name of its own for one
function. It takes them for UTF-8, but they quote bytes of the file; the first module logs within a callback, whose
traceback would go to stderr."""


def _as_text(pointer: Any) -> str:
    """Return the text that a C string of libvips holds; bytes that are no UTF-8 become "\\xff" and the like."""
    if pointer == pyvips.ffi.NULL:
        return "NULL"
    stored = pyvips.ffi.string(pointer)
    return stored.decode("utf-8", "backslashreplace") if isinstance(stored, bytes) else str(stored)


class _Settings:
    """What libvips and pyvips keep for the whole process: ours while any thread is in `own_settings`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._before: tuple[int, int, Any] = (0, 0, None)

    def set(self) -> None:
        """Set ours, unless another thread has done so."""
        with self._lock:
            if not self._threads:
                library = pyvips.vips_lib
                cached, concurrency = library.vips_cache_get_max(), library.vips_concurrency_get()
                self._before = cached, concurrency, pyvips.error._to_string
                self._apply(0, 1, _as_text)
            self._threads += 1

    def restore(self) -> None:
        """Set what was found, unless another thread still needs ours."""
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._apply(*self._before)

    def _apply(self, cached: int, concurrency: int, to_text: Any) -> None:
        pyvips.cache_set_max(cached)
        pyvips.concurrency_set(concurrency)
        for module in _TEXT_MODULES:
            module._to_string = to_text


_settings = _Settings()


@contextmanager
def own_settings() -> Iterator[None]:
    """Let libvips keep no operation and use one thread, and let pyvips take text of any bytes; then as it was."""
    _settings.set()
    try:
        yield
    finally:
        _settings.restore()


@contextmanager
def own_messages(path: Path | None = None) -> Iterator[None]:
    """Let one thread at a time read with libvips, whose messages of all threads are in one buffer; see `own_settings`.

    Reading takes a hundredth of the time of the fastest network, so that waiting for one another costs little.

    Raises:
        InputError: libvips has no room for the pixels of the file at `path` on the disk of temporary files.
    """
    if getattr(_reading, "is_inside", False):
        yield
        return
    with native_call(), _TURN, own_settings(), signals_held():
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
