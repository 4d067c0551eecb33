"""A server in a process of its own, whose temporary files lie in a folder of the test's."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

MOST_SECONDS = 60.0
"""How long anything is waited for: the machine may have other work."""


class ServerProcess:
    """A server that runs; `link` is what it has printed first."""

    end_seconds = MOST_SECONDS
    """How long it may take to end."""

    def __init__(self, temporary: Path, *arguments: str) -> None:
        temporary.mkdir(exist_ok=True)
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        assert self.process.stdout is not None
        self.link = self.process.stdout.readline().strip()

    def ended(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit code, and what was written to stderr, after a signal."""
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=self.end_seconds)
        return self.process.returncode, stderr


Server = TypeVar("Server", bound=ServerProcess)


@contextlib.contextmanager
def killed_at_the_end(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()
