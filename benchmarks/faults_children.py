"""Children that judge many inputs, one after the other: a line of stdin each, a verdict on stdout."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from faults_commands import POLL_SECONDS, end_group, no_core_files, tree_bytes
from faults_verdicts import (
    CRASH,
    HANG,
    LIMIT_BYTES,
    LIMIT_SECONDS,
    MEMORY,
    REFUSED,
    RIGHT,
    TRACEBACK,
    UNEXPECTED,
    WRONG,
    judged_message,
)

_START_SECONDS = 60.0
"""Time for the imports of a child that answers; torch takes seconds beside other work."""


class AnsweringChild:
    """A script that answers each line it is given with a verdict; a new one is started where it has died.

    Args:
        script: of this folder; `python SCRIPT --child` runs `answer_lines`.
    """

    def __init__(self, script: Path) -> None:
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child
        self._buffer = b""

    def ask(self, request: str) -> tuple[str, str]:
        """Return the verdict on one input, and what was said of it."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._dead(CRASH)
        return self._answer(LIMIT_SECONDS)

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._end()
        self._words.close()

    def _start(self) -> None:
        self._words.close()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, str(self._script), "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            preexec_fn=no_core_files,
            start_new_session=True,
        )
        verdict, text = self._answer(_START_SECONDS)
        if verdict != "ready":
            raise RuntimeError(f"{self._script.name} --child did not start: {verdict} {text}")

    def _answer(self, limit_seconds: float) -> tuple[str, str]:
        assert self._process is not None and self._process.stdout is not None
        until = time.monotonic() + limit_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if selector.select(POLL_SECONDS):
                    data = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not data:
                        return self._dead(CRASH)
                    self._buffer += data
                elif tree_bytes(self._process.pid) > LIMIT_BYTES:
                    return self._dead(MEMORY)
                elif time.monotonic() > until:
                    return self._dead(HANG)
        line, _, self._buffer = self._buffer.partition(b"\n")
        verdict, text = json.loads(line)
        return verdict, text

    def _dead(self, verdict: str) -> tuple[str, str]:
        """Return the verdict on an input that ended the child, or for which it is ended."""
        code = self._end()
        self._words.seek(0)
        words = self._words.read().decode("utf-8", "replace")
        if verdict == CRASH and "Traceback (most recent call last)" in words:
            verdict = TRACEBACK
        return verdict, f"exit code {code}; {words[-300:]}"

    def _end(self) -> int:
        """End the process, if it has not, and return its exit code."""
        process, self._process = self._process, None
        assert process is not None and process.stdin is not None and process.stdout is not None
        end_group(process)
        with contextlib.suppress(BrokenPipeError):  # of a request that was not read
            process.stdin.close()
        process.stdout.close()
        return process.returncode


def answer_lines(judge: Callable[[str], tuple[str, str]]) -> None:
    """Answer each line of stdin by a verdict and a text as JSON: what `AnsweringChild` talks to.

    Args:
        judge: returns the verdict on an input. What it raises is one: an error of realesr is a refusal.
    """
    from realesr.errors import RealesrError

    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not answer
    print(json.dumps(["ready", ""]), file=stdout, flush=True)
    for line in sys.stdin:
        started_bytes = _forget_peak()
        try:
            verdict, text = judge(line.removesuffix("\n"))
        except RealesrError as error:
            verdict, text = judged_message(str(error))
        except Exception as error:
            verdict, text = UNEXPECTED, f"{type(error).__name__}: {error}"
        peak = _peak_bytes()
        if peak > LIMIT_BYTES and verdict in (REFUSED, WRONG, RIGHT):
            verdict, text = MEMORY, f"{peak >> 20} MB after {started_bytes >> 20} MB before; {text}"
        print(json.dumps([verdict, text]), file=stdout, flush=True)


def _forget_peak() -> int:
    """Set the kernel's mark of this process's peak back; return what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def _peak_bytes() -> int:
    from realesr.machine.memory import peak_bytes

    return peak_bytes()
