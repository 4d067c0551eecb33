"""Ends servers by SIGTERM while clients wait, send, stall and watch: each must get an image or a reason, in time."""

import contextlib
import http.client
import json
import random
import signal
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from faults_verdicts import HANG, REFUSED, RIGHT, WRONG, Tally
from server_child import COMPACT, ServeChild, serving
from server_faults import JOB_PX, OVER, SMALL_PX, over, picture, submitted
from server_hostile import post
from server_sockets import judge_end

GRACE_SECONDS = 3
CLIENTS = 12


@dataclass(frozen=True, kw_only=True)
class Got:
    """What a client got for one request."""

    began: float
    status: int
    """0 where the connection ended without an answer, -1 where there was none."""
    words: str


def inject_endings(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """End `trials` servers by SIGTERM while clients wait for images, send more, stall, and watch their jobs."""
    dice, totals = random.Random(seed), Counter[str]()
    for number in range(trials):
        size = (JOB_PX, SMALL_PX, (3 * JOB_PX[0], 3 * JOB_PX[1]))[number % 3]
        with serving(folder, "--grace", f"{GRACE_SECONDS}s", "--queue", str(2 * CLIENTS)) as server:
            over(server, submitted(server, picture(SMALL_PX)))
            _end_under_load(tally, server, picture(size), dice.uniform(0.3, 1.5), totals)
            judge_end(tally, server)
    tally.figures["answers"] = dict(sorted(totals.items()))


def _end_under_load(
    tally: Tally, server: ServeChild, content: bytes, wait_seconds: float, totals: Counter[str]
) -> None:
    """Let clients ask, end the server, and judge what each of them got."""
    got: list[Got] = []
    last_events: list[str] = []
    threads = [threading.Thread(target=_ask_until_gone, args=(server, content, got)) for _ in range(CLIENTS - 2)]
    watched = [submitted(server, content) for _ in range(2)]
    threads += [threading.Thread(target=_watch, args=(server, id, last_events)) for id in watched]
    for thread in threads:
        thread.start()
    stalled = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    for connection, sent in zip(stalled, (b"", b"GET / HT", post(content)[:600]), strict=True):
        connection.sendall(sent)
    time.sleep(wait_seconds)
    ended = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(Exception):
        server.process.wait(GRACE_SECONDS + 20)
    seconds = time.monotonic() - ended
    for thread in threads:
        thread.join()
    for connection in stalled:
        connection.close()
    in_time = server.process.returncode == 0 and seconds < GRACE_SECONDS + 5
    tally.add(
        "ends by 0 in time", RIGHT if in_time else HANG, f"code {server.process.returncode} after {seconds:.1f} s"
    )
    for one in got:
        verdict = _verdict(one, ended)
        totals[str(one.status) if one.status > 0 else "no answer" if one.status == 0 else "no connection"] += 1
        tally.add(
            "each request is answered", verdict, f"{one.status} {one.words}, {one.began - ended:.2f} s from SIGTERM"
        )
    for state in last_events:
        totals[f"event {state}"] += 1
        tally.add("each watched job ends in a told state", RIGHT if state in OVER else WRONG, state)


def _verdict(got: Got, ended: float) -> str:
    """Return the verdict on what a client got: an image, a reason, or nothing where it came when all was over."""
    if got.status == 200:
        return RIGHT
    if got.status == 503 and got.words:
        return REFUSED
    return REFUSED if got.status <= 0 and got.began > ended else WRONG


def _ask_until_gone(server: ServeChild, content: bytes, got: list[Got]) -> None:
    """Send one image after the other until the server is no more."""
    while True:
        began = time.monotonic()
        try:
            answer = server.send("/v1/images/upscale", content, model=COMPACT)
            words = "" if answer.status == 200 else answer.error
            got.append(Got(began=began, status=answer.status, words=words))
            if answer.status == 503:
                time.sleep(0.2)
        except ConnectionRefusedError as error:
            got.append(Got(began=began, status=-1, words=str(error)))
            return
        except (OSError, http.client.HTTPException) as error:
            got.append(Got(began=began, status=0, words=repr(error)))


def _watch(server: ServeChild, id: str, last_events: list[str]) -> None:
    """Read the events of a job to their end; note its last state."""
    try:
        events = server.ask("GET", f"/api/jobs/{id}/events").body
    except (OSError, http.client.HTTPException) as error:
        last_events.append(repr(error))
        return
    lines = [line for line in events.splitlines() if line.startswith(b"data: ")]
    last_events.append(json.loads(lines[-1][6:])["state"] if lines else "nothing")
