"""Runs the builder's process: time limit, progress, and one line of error for a crash, a hang or an exception."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from realesr.errors import EngineError
from realesr.export.tensorrt_child import ERRORS, BuildResult, BuildTask

BuildProgressCallback = Callable[[float, str], None]
"""Called with the share of a build that is done, 0 to 1, and the builder's name for its current phase."""

_POLL_SECONDS = 0.2
_LAST_BYTES = 4000
"""Length of the builder's output that is searched where it ended without a message."""


def child_command() -> list[str]:
    """Return the command that starts the child."""
    return [sys.executable, "-m", "realesr.export.tensorrt_child"]


def build_apart(
    task: BuildTask, *, limit_seconds: float, on_progress: BuildProgressCallback | None = None
) -> BuildResult:
    """Have the child build; it never outlives this call.

    Args:
        task: of the child.
        limit_seconds: the child is ended after this.
        on_progress: called while it builds.

    Raises:
        EngineError: the child crashed, or took too long. Errors that it reports are raised too: see
            `tensorrt_child.build`.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
        child = subprocess.Popen(
            child_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            text=True,
            encoding="utf-8",
            # Ctrl-C is for this process, which then ends the child; else the child's own words would come as well.
            start_new_session=True,
        )
        try:
            _give(child, task)
            return _result_of(child, task, limit_seconds, on_progress, printed)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def _give(child: subprocess.Popen[str], task: BuildTask) -> None:
    assert child.stdin is not None
    # Where it has ended already, why is told by what it left.
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(task.to_json())
        child.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()


def _result_of(
    child: subprocess.Popen[str],
    task: BuildTask,
    limit_seconds: float,
    on_progress: BuildProgressCallback | None,
    printed: IO[str],
) -> BuildResult:
    assert child.stdout is not None
    for message in _messages(child.stdout, task, limit_seconds):
        if "error" in message:
            raise ERRORS[message["error"]](message["message"])
        if "done" in message:
            return BuildResult(**message["done"])
        if on_progress is not None:
            on_progress(message["progress"], message["phase"])
    raise EngineError(f"the builder of {task.library} {_ending(child.wait())}: {_last_of(printed)}")


def _messages(stdout: IO[str], task: BuildTask, limit_seconds: float) -> Iterator[dict[str, Any]]:
    """Yield the child's messages as they come, until it ends or the time is over."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put(None)

    # A pipe has no time limit on all systems; a thread that reads it, and a queue, have.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    end = time.monotonic() + limit_seconds
    while True:
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if time.monotonic() > end:
                raise EngineError(
                    f"the builder of {task.library} was ended after {limit_seconds:g} s without an engine: "
                    "allow it more time, or build for smaller tiles",
                    option="limit_minutes",
                ) from None
            continue
        if line is None:
            return
        yield json.loads(line)


def _ending(code: int) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended without an engine (exit status {code})"


def _last_of(printed: IO[str]) -> str:
    """Return the last line that it printed, which names the exception if there was one."""
    printed.seek(0, os.SEEK_END)
    printed.seek(max(0, printed.tell() - _LAST_BYTES))
    lines = [line for line in printed.read().splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:300] if lines else "it printed nothing"
