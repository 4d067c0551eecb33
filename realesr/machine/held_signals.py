"""Holds signals back while a native library may be calling Python functions in the main thread.

A signal's handler may raise, such as KeyboardInterrupt, between any two instructions of the main thread. Within a
function that a library has called, nobody can catch that: cffi prints a traceback, and the exception is lost. So
handlers run right after the library has returned. Source: Python's `signal`, "Execution of Python signal handlers".
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")
"""Signals whose handlers commonly raise; Windows has not all of them."""


@contextmanager
def signals_held() -> Iterator[None]:
    """Let handlers written in Python wait for the end of the block; in other threads than the main one do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = _python_handlers()
    received: list[int] = []
    with ExitStack() as stack:
        stack.callback(_call_handlers, handlers, received)  # behind the block, once they have been put back
        for number, handler in handlers.items():
            stack.callback(signal.signal, number, handler)
            signal.signal(number, lambda number, _frame: received.append(number))
        yield


def _python_handlers() -> dict[int, Callable[..., Any]]:
    """Return the handlers that are Python functions; the system handles or ignores the other signals itself."""
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if callable(handler)}


def _call_handlers(handlers: Mapping[int, Callable[..., Any]], received: list[int]) -> None:
    """Call the handlers of the signals received, in their order; each is called, even if one before it raises."""
    with ExitStack() as stack:
        for number in reversed(received):
            stack.callback(handlers[number], number, None)
