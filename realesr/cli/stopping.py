"""Ctrl-C and SIGTERM: the main thread gets an exception, the thread that runs the network asks when it tells of work.

That is at every tile, and within a tile where the engine knows how far it is.

Without the second, stopping would wait for the whole row of tiles that is being made, which can take minutes. With
most engines one tile has to be waited for, or a second Ctrl-C given: they cannot be left in the middle of a network.
"""

import os
import signal
import sys
from types import FrameType

AGAIN = b"\nstopping; Ctrl-C again does not wait for the network\n"

_came: list[int] = []
"""Numbers of the signals that have come."""


def listen() -> None:
    """From now on both signals end the command by an exception, so that a half-written file is removed."""
    signal.signal(signal.SIGTERM, _on_signal)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background job is not for Ctrl-C
        signal.signal(signal.SIGINT, _on_signal)


def check() -> None:
    """End the calling thread, whichever it is, once a signal has come.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM.
    """
    if _came:
        if _came[0] == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + _came[0])


def leave(code: object) -> None:
    """End the process at once if a signal has come; everything was cleaned up before.

    A thread may still be inside a library of C++, and Python's own end would abort the process under it: "terminate
    called without an active exception".
    """
    if _came:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    _came.append(number)
    if len(_came) == 1 and number == signal.SIGINT and sys.stderr.isatty():
        os.write(2, AGAIN)  # print may be in the middle of a line, and must not be entered twice
    check()
