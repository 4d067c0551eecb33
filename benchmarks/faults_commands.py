"""Runs commands under watch: their time, their memory, and how they end."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
from faults_verdicts import CRASH, HANG, LIMIT_BYTES, LIMIT_SECONDS, MEMORY, TRACEBACK

COMMAND = (sys.executable, "-m", "realesr")
NETWORK = ("-m", "realesr-animevideov3")
DRY_RUN = (*NETWORK, "--engine", "nearest")
"""Everything but the network: pixels are repeated 4 x 4."""
POLL_SECONDS = 0.03


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; below 0 a signal."""
    out: str
    err: str
    fault: str
    """HANG or MEMORY where it was ended for that, CRASH or TRACEBACK; empty where it ended by itself."""
    seconds: float
    peak_bytes: int


def tree_bytes(pid: int) -> int:
    """Return the largest resident memory of a process so far, and that of all below it now; 0 once it has gone."""
    try:
        children = sum(child.memory_info().rss for child in psutil.Process(pid).children(recursive=True))
        status = Path(f"/proc/{pid}/status").read_text()
    except (psutil.Error, OSError):
        return 0
    peak = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return peak + children


def end_group(process: "subprocess.Popen[Any]") -> None:
    """End a child and all that it started; it leads a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.wait()


def run_watched(
    command: Sequence[str | Path],
    *,
    limit_seconds: float = LIMIT_SECONDS,
    limit_bytes: int = LIMIT_BYTES,
    environment: Mapping[str, str] | None = None,
    limits: Callable[[], None] | None = None,
    stdout: IO[Any] | None = None,
    stderr: IO[Any] | None = None,
    on_start: Callable[["subprocess.Popen[bytes]"], None] | None = None,
) -> Ended:
    """Run a command, and end it where it takes too much time or memory.

    Args:
        command: words of the command.
        limit_seconds: of its whole run.
        limit_bytes: of its resident memory, with that of its children.
        environment: variables beside those of this process.
        limits: called in the child before the command starts.
        stdout: where its results go instead of `Ended.out`; likewise `stderr`.
        on_start: called with the process once it runs.
    """

    def prepare() -> None:
        no_core_files()
        if limits is not None:
            limits()

    began, peak, fault = time.monotonic(), 0, ""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=stdout or out,
            stderr=stderr or err,
            env={**os.environ, **(environment or {})},
            preexec_fn=prepare,
            start_new_session=True,
        )
        if on_start is not None:
            on_start(process)
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            peak = max(peak, tree_bytes(process.pid))
            fault = MEMORY if peak > limit_bytes else HANG if time.monotonic() - began > limit_seconds else ""
            if fault:
                end_group(process)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    if not fault and "Traceback (most recent call last)" in texts[1]:
        fault = TRACEBACK
    elif not fault and process.returncode < 0:
        fault = CRASH
    return Ended(
        code=process.returncode,
        out=texts[0],
        err=texts[1],
        fault=fault,
        seconds=time.monotonic() - began,
        peak_bytes=peak,
    )


def last_line(text: str) -> str:
    """Return the last line of a text that is not empty, or nothing."""
    return next((line for line in reversed(text.split("\n")) if line.strip()), "")


def no_core_files() -> None:
    """Let this process leave no core file when it crashes."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
