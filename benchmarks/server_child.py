"""Runs `realesr serve` as a child process for benchmarks, and asks it over HTTP by sockets."""

import contextlib
import http.client
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

COMPACT = "realesr-general-x4v3"
"""A compact network, which is in the package."""
BOUNDARY = "realesr-bench-5c1d80e2f7"
"""Between the parts of forms."""
START_SECONDS = 60.0
ANSWER_SECONDS = 120.0
SECONDS_BETWEEN_SAMPLES = 0.5


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer that has been read to its end."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Return the message of an error, or the beginning of whatever else was answered."""
        try:
            return str(self.json["error"]["message"])
        except (ValueError, KeyError, TypeError):
            return ascii(self.body[:200])


class ServeChild:
    """A server that runs on a free port of this machine, with a folder for its temporary files alone."""

    def __init__(self, temporary: Path, *options: str) -> None:
        """Start it with these options of `realesr serve`; it takes jobs from now on."""
        self.temporary = temporary
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child
        self.process = subprocess.Popen(
            [sys.executable, "-m", "realesr", "serve", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=self._words,
            env={**os.environ, "TMPDIR": str(temporary)},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        killer = threading.Timer(START_SECONDS, self.process.kill)
        killer.start()
        link = self.process.stdout.readline().decode().strip()
        killer.cancel()
        if not link:
            raise RuntimeError(f"realesr serve did not start: {self.words()}")
        self.port: int = urlsplit(link).port or 80

    def words(self) -> str:
        """Return what it has written to stderr."""
        self._words.seek(0)
        return self._words.read().decode("utf-8", "replace")

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask by a connection of its own.

        Raises:
            OSError: there is no connection, or it ends before the answer does.
            http.client.HTTPException: likewise.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, {**(headers or {}), "Connection": "close"})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(status=answer.status, headers=named, body=answer.read())

    def send(self, path: str, content: bytes, name: str = "photo.png", **fields: str) -> Answer:
        """Send an image as a form; see `ask`."""
        media_type, body = form(content, name, fields)
        return self.ask("POST", path, body, {"Content-Type": media_type})

    def metric(self, name: str) -> float:
        """Return one of the figures for Prometheus."""
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            if line.startswith(f"realesr_{name} "):
                return float(line.rpartition(" ")[2])
        raise KeyError(name)

    def worker_pid(self, module: str = "realesr.server.worker") -> int | None:
        """Return the id of the process that runs networks, or of another child; None while there is none."""
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if module in child.cmdline():
                    return child.pid
        return None

    def job_folders(self) -> list[str]:
        """Return the names of the folders of jobs."""
        return [path.name for path in self.temporary.glob("realesr-serve-*/job-*")]

    def end(self, limit_seconds: float = 40.0) -> int | None:
        """Ask it to end by SIGTERM; return its exit code, or None where it had to be killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def close(self) -> None:
        """Kill it where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._words.close()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[ServeChild]:
    """Yield a server whose temporary files lie in a new folder within `folder`."""
    temporary = folder / f"serve-{secrets.token_hex(4)}"
    temporary.mkdir()
    child = ServeChild(temporary, *options)
    try:
        yield child
    finally:
        child.close()


def form(content: bytes, name: str, fields: Mapping[str, str]) -> tuple[str, bytes]:
    """Return media type and body of a form: its fields, and a file as `image` (RFC 7578)."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    return f"multipart/form-data; boundary={BOUNDARY}", body


class MemoryWatch:
    """Samples the memory of a process and all below it, from the block's start to its end."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.rss: list[int] = []
        """Bytes resident, with those that processes share counted in each."""
        self.pss: list[int] = []
        """Bytes resident, with those that processes share counted once."""

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(self._pid)
                infos = [one.memory_full_info() for one in (process, *process.children(recursive=True))]
                self.rss.append(sum(info.rss for info in infos))
                self.pss.append(sum(info.pss for info in infos))

    def halves(self) -> tuple[float, float]:
        """Return the mean PSS of the first and of the second half, in bytes; 0 where there are too few samples."""
        half = len(self.pss) // 2
        return (statistics.mean(self.pss[:half]), statistics.mean(self.pss[-half:])) if half else (0.0, 0.0)


def wait_until(condition: Any, seconds: float) -> bool:
    """Return whether a condition comes true within a time."""
    last = time.monotonic() + seconds
    while not (is_true := condition()) and time.monotonic() < last:
        time.sleep(0.02)
    return bool(is_true)
