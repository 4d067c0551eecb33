"""Keeps daemon threads out of native libraries while Python ends.

When the interpreter ends, a daemon thread that comes back from a library is stopped by unwinding its stack (CPython up
to 3.13; from 3.14 on it hangs). C++ code that forbids that, such as pybind11's, calls `std::terminate`: the process
aborts though its work was done. So when the interpreter is about to end, threads that want to enter a library wait for
ever, and those that are inside one are waited for. Source: `Py_FinalizeEx` in Python's C API, "Bugs and caveats".
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_WAIT_S = 60.0
"""Seconds for which the end of the interpreter waits; a tile takes less."""

_depth = threading.local()
"""`.calls`: the native calls that this thread is in, one within the other."""


class _Calls:
    """Threads that are inside native libraries."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.threads = 0
        self.kept_out: frozenset[int] = frozenset()
        """Threads that were there when the interpreter began to end, but for the one that ends it."""


_calls = _Calls()


@contextmanager
def native_call() -> Iterator[None]:
    """Mark this thread as inside a native library; once the interpreter ends, wait for ever instead of entering."""
    depth = getattr(_depth, "calls", 0)
    if not depth:
        _enter()
    _depth.calls = depth + 1
    try:
        yield
    finally:
        _depth.calls = depth
        if not depth:
            _leave()


@contextmanager
def back_in_python() -> Iterator[None]:
    """Count a native call as left while a Python function that it has called waits for other threads.

    The library may make that call in a thread of its own.
    """
    depth = getattr(_depth, "calls", 0)
    _depth.calls = 0
    _leave()
    try:
        yield
    finally:
        _enter()
        _depth.calls = depth


def _enter() -> None:
    with _calls.changed:
        while threading.get_ident() in _calls.kept_out:
            _calls.changed.wait()
        _calls.threads += 1


def _leave() -> None:
    with _calls.changed:
        _calls.threads -= 1
        _calls.changed.notify_all()


def _end() -> None:
    """Let no other thread enter a library, and wait for those that are inside; runs when the interpreter ends.

    Functions that others registered with atexit may run later than this one and start threads of their own.
    """
    with _calls.changed:
        idents = (thread.ident for thread in threading.enumerate())
        _calls.kept_out = frozenset(each for each in idents if each not in (None, threading.get_ident()))
        _calls.changed.wait_for(lambda: _calls.threads <= 0, LONGEST_WAIT_S)


def _forget() -> None:
    """Forget the parent's threads, which a forked child does not have."""
    global _calls
    _calls = _Calls()
    _calls.threads = 1 if getattr(_depth, "calls", 0) else 0


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
