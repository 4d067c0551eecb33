"""Threads that work for as long as the process has any other thread to work for.

`concurrent.futures` takes no work from the moment at which the main thread has ended, while other threads may go on for
hours. Threads of this module do; at the end of the interpreter they are waited for by `realesr.machine.leaving`, for
whoever gives them work waits for it inside a native call.
"""

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Job:
    """A call that a thread shall make."""

    future: "Future[Any]"
    work: Callable[..., Any]
    arguments: tuple[Any, ...]

    def run(self) -> None:
        """Make the call, unless it was cancelled, and hand its result or its exception to the future."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.work(*self.arguments)
        except BaseException as error:  # raised again by whoever asks for the result
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


_Jobs = queue.SimpleQueue[_Job | None]


class WorkerThreads:
    """A fixed number of threads that take calls in the order in which they are submitted.

    Leaving it unreferenced ends the threads, as `close` does.
    """

    def __init__(self, count: int, name: str) -> None:
        self._jobs: _Jobs = queue.SimpleQueue()
        for number in range(count):
            threading.Thread(target=_serve, args=(self._jobs,), name=f"{name}_{number}", daemon=True).start()
        self._end = weakref.finalize(self, _send_home, self._jobs, count)
        self._end.atexit = False

    def submit(self, work: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Have a thread call `work` with these arguments."""
        future: Future[Result] = Future()
        self._jobs.put(_Job(future, work, arguments))
        return future

    def close(self) -> None:
        """End the threads once all that was submitted is done; closing twice is allowed."""
        self._end()


def _serve(jobs: _Jobs) -> None:
    """Do jobs until None comes; runs in a worker's thread."""
    while (job := jobs.get()) is not None:
        job.run()
        del job  # its arguments must not live until the next one comes


def _send_home(jobs: _Jobs, count: int) -> None:
    for _ in range(count):
        jobs.put(None)
