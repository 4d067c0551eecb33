"""Ctrl-C and SIGTERM: the main thread gets an exception, the thread that runs the network asks at every tile.

Without the second, stopping would wait for the whole row of tiles that is being made, which can take minutes.
"""

import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

_stopped = threading.Event()


def listen() -> None:
    """From now on both signals end the command by an exception, so that a half-written file is removed."""
    signal.signal(signal.SIGTERM, _on_signal)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background job is not for Ctrl-C
        signal.signal(signal.SIGINT, _on_signal)


def check() -> None:
    """Raise KeyboardInterrupt in any thread once a signal has come."""
    if _stopped.is_set():
        raise KeyboardInterrupt


def _on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    _stopped.set()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
