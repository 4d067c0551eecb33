"""Sends hostile requests over sockets, and judges what comes back: a right answer, or a closed connection, in time."""

import contextlib
import json
import re
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from faults_verdicts import CRASH, HANG, LEFTOVER, REFUSED, RIGHT, UNEXPECTED, WRONG, Tally, judged_message
from server_child import MemoryWatch, ServeChild, serving, wait_until
from server_hostile import CLOSED, SERVER_OPTIONS, TOKEN, Hostile, hostile_requests

AT_ONCE = 8
SLOW_AT_ONCE = 24
"""Slow clients run beside the others; most of their time they wait."""
_READ_BYTES = 1 << 16
_LEAKS = re.compile(rb"root:x?:|Traceback \(most recent|realesr-serve-|/site-packages/|/realesr/server/")
"""What no answer may have in it: files of this machine, its paths, faults' tracebacks."""
_EXPECTED = re.compile(r"|serving; Ctrl-C ends it|ended|job \S+ failed: (?!(the server|realesr) failed \().*")
"""A line that a server may write: why the job of an image failed, say, but not that the server itself did."""


@dataclass(frozen=True, kw_only=True)
class Received:
    """What came back on a connection."""

    data: bytes
    is_closed: bool
    """Whether the server closed the connection, or reset it."""
    seconds: float


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Send `trials` requests to one server, count how each ends, and look at the server afterwards."""
    requests = hostile_requests(trials, seed)
    with serving(folder, *SERVER_OPTIONS) as server, MemoryWatch(server.process.pid) as memory:
        with ThreadPoolExecutor(SLOW_AT_ONCE) as patient, ThreadPoolExecutor(AT_ONCE) as quick:
            runs = [(patient if one.pause_seconds else quick).submit(said, server.port, one) for one in requests]
            for number, (one, run) in enumerate(zip(requests, runs, strict=True)):
                verdict, why = judged(one, run.result())
                tally.add(one.subject, verdict, f"request {number}: {why}")
        _look_afterwards(tally, server)
    tally.figures["pss_mb_most"] = round(max(memory.pss, default=0) / 1e6)


def said(port: int, hostile: Hostile) -> Received:
    """Send a request piece by piece; return what comes back until the connection is closed or the time is over."""
    began = time.monotonic()
    last = began + hostile.limit_seconds
    received, is_closed = b"", False
    with socket.create_connection(("127.0.0.1", port), timeout=hostile.limit_seconds) as connection:
        connection.setblocking(False)
        for part in _exchanged(connection, hostile, last):
            received += part
            is_closed = not part
    return Received(data=received, is_closed=is_closed, seconds=time.monotonic() - began)


def _exchanged(connection: socket.socket, hostile: Hostile, last: float) -> Iterator[bytes]:
    """Yield what comes back while a request is being sent and afterwards; at last b"", where the server closes."""
    pieces, unsent, next_s = iter(hostile.pieces), b"", time.monotonic()
    is_sending = True
    while time.monotonic() < last:
        if is_sending and not unsent and time.monotonic() >= next_s:
            unsent, next_s = next(pieces, b""), time.monotonic() + hostile.pause_seconds
            if not unsent:
                is_sending = False
                if hostile.ends:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)
        wait = min(0.05, max(0.0, next_s - time.monotonic())) if is_sending else 0.05
        readable, writable, _ = select.select([connection], [connection] if unsent else [], [], wait)
        try:
            if writable:
                unsent = unsent[connection.send(unsent) :]
            if readable:
                part = connection.recv(_READ_BYTES)
                yield part
                if not part:
                    return
        except OSError:  # reset: what had come before is the answer
            if not readable:
                yield from _rest(connection)
            yield b""
            return


def _rest(connection: socket.socket) -> Iterator[bytes]:
    """Yield what has come on a connection that takes no more bytes."""
    with contextlib.suppress(OSError):
        while part := connection.recv(_READ_BYTES):
            yield part


def judged(hostile: Hostile, received: Received) -> tuple[str, str]:
    """Return the verdict on an answer, and how it came to that."""
    answers = list(answers_in(received.data))
    statuses = [status for status, _ in answers]
    first = statuses[0] if statuses else CLOSED if received.is_closed else None
    shown = ascii(b"".join(hostile.pieces)[:300])
    about = f"{shown} got {statuses or ascii(received.data[:80])} in {received.seconds:.1f} s"
    if first is None or not (received.is_closed or answers):
        return HANG, about
    if not received.is_closed:
        return HANG, f"the connection stayed open: {about}"
    if leak := _LEAKS.search(received.data):
        return WRONG, f"told {leak[0]!r}: {about}"
    if first not in hostile.answers:
        message = ascii(answers[0][1][:300]) if answers else ""
        return (UNEXPECTED if first == 500 else WRONG), f"expected {list(hostile.answers)}: {about}: {message}"
    if faults := [status for status in statuses if status >= 500 and status not in hostile.answers]:
        return UNEXPECTED, f"{faults}: {about}"
    for status, body in answers:
        if status >= 400 and body.startswith(b'{"error"'):
            verdict, why = judged_message(json.loads(body)["error"]["message"])
            if verdict != REFUSED:
                return verdict, f"{why}: {about}"
    return (RIGHT if first in (200, 206) else REFUSED), about


def answers_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield status and body of each answer; one without a length goes on to the end."""
    while data.startswith(b"HTTP/1.1 "):
        start, _, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", start)
        status, size = int(data[9:12]), int(length[1]) if length else len(rest)
        if status != 100:
            yield status, rest[:size]
        data = rest[size:] if status != 100 else rest


def _look_afterwards(tally: Tally, server: ServeChild) -> None:
    """Judge whether the server is as before: it answers, works, keeps nothing, has said nothing, and ends."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}

    def figures() -> dict[str, str]:
        lines = server.ask("GET", "/metrics", headers=bearer).body.decode().splitlines()
        return dict(line.split() for line in lines if not line.startswith("#"))

    def is_idle() -> bool:
        now = figures()
        return all(now[f"realesr_jobs_{state}"] == "0" for state in ("queued", "uploading", "running"))

    tally.add("afterwards: it answers", RIGHT if server.process.poll() is None else CRASH, server.words())
    tally.add("afterwards: nothing waits or runs", RIGHT if wait_until(is_idle, 40) else HANG, str(figures()))
    listed = server.ask("GET", "/api/models", headers=bearer)
    tally.add("afterwards: it works", RIGHT if listed.status == 200 else WRONG, listed.error)
    is_gone = wait_until(lambda: not server.job_folders(), 5)
    tally.add("afterwards: no folder of a job", RIGHT if is_gone else LEFTOVER, str(server.job_folders()))
    judge_end(tally, server)


def judge_end(tally: Tally, server: ServeChild) -> None:
    """End a server, and judge its exit code, its words and what it leaves."""
    code = server.end()
    tally.add("the end: exit code 0", RIGHT if code == 0 else HANG if code is None else WRONG, f"code {code}")
    words = "\n".join(line for line in server.words().splitlines() if not _EXPECTED.fullmatch(line.strip()))
    tally.add("the end: no fault was logged", RIGHT if not words else UNEXPECTED, words)
    left = [path.name for path in server.temporary.iterdir()]
    tally.add("the end: nothing is left", RIGHT if not left else LEFTOVER, str(left))
