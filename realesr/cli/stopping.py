"""Stops a command after a signal: by an exception in the main thread, by `check` in the network's thread.

The signals are Ctrl-C, SIGTERM and SIGHUP.

`check` runs at every progress callback: after every tile, and within a tile where the engine reports progress. Without
it, stopping would wait for the whole row of tiles, which can take minutes. Most engines cannot be interrupted within a
tile: there the command waits for the tile, or for a second Ctrl-C.
"""

import contextlib
import os
import signal
import sys
from types import FrameType

AGAIN = b"\nstopping; Ctrl-C again does not wait for the network\n"

_signals: list[int] = []
"""Numbers of the signals received so far."""


def listen() -> None:
    """Install handlers of the signals that raise an exception, so that a half-written file is removed."""
    signal.signal(signal.SIGTERM, _on_signal)
    for name in ("SIGINT", "SIGHUP"):  # SIGHUP: the terminal was closed; Windows has none
        number = getattr(signal, name, None)
        # A shell's background job is not for Ctrl-C, and one under nohup stays when the terminal goes.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def check() -> None:
    """Raise in the calling thread, whichever it is, once a signal has been received.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM or SIGHUP.
    """
    if _signals:
        if _signals[0] == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + _signals[0])


def leave(code: object) -> None:
    """End the process at once if a signal has been received; everything has been cleaned up before.

    A thread may still be inside a C++ library, and Python's normal exit would then abort the process: "terminate called
    without an active exception".
    """
    if _signals:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, or not there at all
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)


def end() -> None:
    """Ignore the signals from now on: the command has ended, and what is raised while Python ends is only printed.

    After a first signal they end the process at once instead: its last words may wait for a reader that does not read.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL if _signals else signal.SIG_IGN)


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Record a signal, and raise its exception in the main thread, or leave that to `check`."""
    _signals.append(number)
    if len(_signals) == 1 and number == signal.SIGINT and os.isatty(2):
        with contextlib.suppress(OSError):
            os.write(2, AGAIN)  # print may be in the middle of a line, and must not be entered twice
    if not _is_called_by_libvips(frame):
        check()


def _is_called_by_libvips(frame: FrameType | None) -> bool:
    """Return whether libvips waits for an answer: nobody can catch an exception there, and cffi prints it."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "pyvips.gobject" and frame.f_code.co_name.startswith("_marshal_"):
            return True
        frame = frame.f_back
    return False
