"""Loads a server with many clients at once: how many answers, how fast, how much memory, how soon a refusal.

A client sends an image, reads the answer, and sends the next; each request has a connection of its own. After a 503 it
waits as long as Retry-After says, but no longer than about `MOST_WAIT_SECONDS`: so there are refusals to measure, and
the clients, which run on the same cores, leave the server its time. As well-behaved clients do, they begin one after
another and vary their waits, so that they do not come all at once.
"""

import asyncio
import contextlib
import math
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults_image_files import photo, saved
from PIL import Image
from server_child import COMPACT, MemoryWatch, ServeChild, form, serving, wait_until

CLIENTS = 32
QUEUE = 8
"""Places in the queue: fewer than clients, so that some are refused."""
MOST_WAIT_SECONDS = 1.0
WAIT_SPREAD = 0.5
"""Waits are varied by up to this share."""
WARM_UP_SECONDS = 3.0
LEAST_THROUGHPUT = 0.95
MOST_GROWTH = 0.05
MOST_REFUSAL_MS = 20.0
SIDES_PX = (24, 32, 40, 48)
ENGINES = ("nearest", "auto")


@dataclass
class Load:
    """What the clients got in a time."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    """HTTP status -> how often; 0 where a connection was closed without an answer."""
    refusal_ms: list[float] = field(default_factory=list)
    """From the beginning of the connection to the end of a 503."""
    errors: Counter[str] = field(default_factory=Counter)
    """What else than 200 and 503 said."""

    @property
    def per_second(self) -> float:
        """Return the images enlarged in a second."""
        return self.statuses[200] / self.seconds


def load_rows(seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Return a row for each engine: a quarter of `seconds` with one client, then `seconds` with `CLIENTS`."""
    rows = []
    for engine in ENGINES:
        with serving(folder, "--engine", engine, "--queue", str(QUEUE)) as server:
            asyncio.run(_loaded(server.port, 1, min(WARM_UP_SECONDS, seconds)))
            alone = asyncio.run(_loaded(server.port, 1, seconds / 4))
            with MemoryWatch(server.process.pid) as memory:
                together = asyncio.run(_loaded(server.port, CLIENTS, seconds))
            rows.append({"engine": engine, **_row(alone, together, memory), **_aftermath(server)})
    return rows


def _row(alone: Load, together: Load, memory: MemoryWatch) -> dict[str, Any]:
    first, second = memory.halves()
    growth = second / first - 1 if first else math.nan
    share = together.per_second / alone.per_second
    others = sum(count for status, count in together.statuses.items() if status not in (200, 503))
    late = sorted(together.refusal_ms) or [math.nan]
    return {
        "seconds": together.seconds,
        "one_client_per_s": alone.per_second,
        f"{CLIENTS}_clients_per_s": together.per_second,
        "throughput_share": share,
        "answers": {str(status): count for status, count in sorted(together.statuses.items())},
        "others": dict(together.errors),
        "refusal_ms_median": statistics.median(late),
        "refusal_ms_99": late[min(len(late) - 1, int(0.99 * len(late)))],
        "refusal_ms_most": late[-1],
        "pss_mb_first_half": first / 1e6,
        "pss_mb_second_half": second / 1e6,
        "pss_growth_percent": 100 * growth,
        "rss_mb_most": max(memory.rss, default=0) / 1e6,
        "throughput_holds": share >= LEAST_THROUGHPUT,
        "errors_hold": not others,
        "memory_holds": abs(growth) <= MOST_GROWTH,
        "refusals_hold": late[-1] < MOST_REFUSAL_MS,
    }


def _aftermath(server: ServeChild) -> dict[str, Any]:
    """Return what is left of the load, and how the server ends."""
    wait_until(lambda: not server.job_folders(), 5)
    left = server.job_folders()
    restarts = server.metric("worker_restarts_total")
    code = server.end()
    left += [path.name for path in server.temporary.iterdir()]
    return {"worker_restarts": restarts, "left": left, "exit_code": code, "words": server.words()}


async def _loaded(port: int, clients: int, seconds: float) -> Load:
    """Return what so many clients got in so long; answers that come later count for none."""
    load, last, dice = Load(seconds), time.monotonic() + seconds, random.Random(0)
    contents = [saved(Image.fromarray(photo(side, side + 8)), "JPEG") for side in SIDES_PX]
    requests = [_request(content) for content in contents]
    await asyncio.gather(*(_client(port, requests, number, last, load, dice) for number in range(clients)))
    return load


def _request(content: bytes) -> bytes:
    """Return the bytes that ask for an image to be enlarged."""
    media_type, body = form(content, "photo.jpg", {"model": COMPACT})
    head = f"POST /v1/images/upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def _client(port: int, requests: list[bytes], number: int, last: float, load: Load, dice: random.Random) -> None:
    """Ask again and again until the time is over."""
    await asyncio.sleep(number / CLIENTS)
    while time.monotonic() < last:
        number += 1
        began = time.perf_counter()
        status, head, body = await _asked(port, requests[number % len(requests)])
        if status == 503:
            load.refusal_ms.append((time.perf_counter() - began) * 1e3)
        if time.monotonic() < last:
            load.statuses[status] += 1
            if status not in (200, 503):
                load.errors[f"{status}: {body[:200]!a}"] += 1
        if status == 503:
            wait = min(float(head.get("retry-after", "1")), MOST_WAIT_SECONDS) * (1 + dice.uniform(0, WAIT_SPREAD))
            await asyncio.sleep(max(0.0, min(wait, last - time.monotonic())))


async def _asked(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer; status 0 where there is none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return 0, {}, str(error).encode()
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body
    except (OSError, asyncio.IncompleteReadError) as error:
        return 0, {}, repr(error).encode()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
