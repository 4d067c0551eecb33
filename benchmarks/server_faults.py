"""Kills the processes of a server, cancels its jobs and deletes them, while it works; each must end in a told state."""

import http.client
import json
import os
import random
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from faults_image_files import photo, saved
from faults_verdicts import CRASH, HANG, LEFTOVER, REFUSED, RIGHT, WRONG, Tally
from PIL import Image
from server_child import COMPACT, ServeChild, serving, wait_until
from server_sockets import judge_end

JOB_PX = (240, 320)
"""Height and width of an image that keeps a worker for about a second; it is smaller than one tile."""
SMALL_PX = (24, 32)
SHOWN_PX = (300, 400)
ENDS = ("thumbnail", "source", "preview", "tiles/result/1/0_0.jpg", "tiles/source/0/0_0.jpg", "result", "events")
"""What is fetched of a job."""
MOST_CANCEL_SECONDS = 1.0
_JOB_SECONDS = 60.0
OVER = ("done", "failed", "cancelled")


def picture(size_px: tuple[int, int]) -> bytes:
    """Return an image of this height and width."""
    return saved(Image.fromarray(photo(*size_px)), "PNG")


def submitted(server: ServeChild, content: bytes) -> str:
    """Return the id of a new job."""
    answer = server.send("/api/jobs", content, model=COMPACT, format="png")
    assert answer.status == 202, answer.error
    return str(answer.json["id"])


def job(server: ServeChild, id: str) -> dict[str, Any]:
    """Return what the server tells of a job."""
    told: dict[str, Any] = server.ask("GET", f"/api/jobs/{id}").json
    return told


def over(server: ServeChild, id: str) -> dict[str, Any]:
    """Return what the server tells of a job once it is over, or still after a minute."""
    wait_until(lambda: job(server, id)["state"] in OVER, _JOB_SECONDS)
    return job(server, id)


# Kills


def inject_kills(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Kill the worker `trials` times in the middle of a job, and the process that looks at files a fourth as often."""
    dice, content, small = random.Random(seed), picture(JOB_PX), picture(SMALL_PX)
    with serving(folder) as server:
        seconds = _seconds_of_a_job(server, content)
        for number in range(trials):
            verdict, why = RIGHT, ""
            while verdict == RIGHT:  # done before it was killed
                verdict, why = _kill_worker(server, content, dice.uniform(0, 0.8 * seconds))
            tally.add("worker killed: its job fails with a reason", verdict, f"trial {number}: {why}")
            tally.add("worker killed: the next job succeeds", *_next_job(server, small))
        for number in range(-(-trials // 4)):
            verdict, why = _kill_inspector(server, small)
            tally.add("inspector killed: the upload is answered", verdict, f"trial {number}: {why}")
            tally.add("inspector killed: the next job succeeds", *_next_job(server, small))
        tally.figures["worker_restarts"] = server.metric("worker_restarts_total")
        judge_end(tally, server)


def _seconds_of_a_job(server: ServeChild, content: bytes) -> float:
    """Return how long a job takes once its network is open."""
    for _ in range(2):
        told = over(server, id := submitted(server, content))
        server.ask("DELETE", f"/api/jobs/{id}")
    return float(told["seconds"])


def _kill_worker(server: ServeChild, content: bytes, wait_seconds: float) -> tuple[str, str]:
    """Kill the worker some time after a job has begun; return the verdict on what is told of the job."""
    id = submitted(server, content)
    if not wait_until(lambda: job(server, id)["state"] != "queued", _JOB_SECONDS):
        return HANG, "the job did not begin"
    time.sleep(wait_seconds)
    pid = server.worker_pid()
    if pid is not None and job(server, id)["state"] == "running":
        os.kill(pid, signal.SIGKILL)
    told = over(server, id)
    if told["state"] == "done":
        return RIGHT, "the job was done before"
    error = told["error"] or {}
    if told["state"] == "failed" and error.get("kind") == "ChildDied" and "SIGKILL" in error["message"]:
        return REFUSED, error["message"]
    return (WRONG if told["state"] in OVER else HANG), json.dumps(told)


def _kill_inspector(server: ServeChild, content: bytes) -> tuple[str, str]:
    """Kill the process that looks at files while uploads come; return the verdict on their answers."""
    answers: list[tuple[int, str]] = []

    def send() -> None:
        answer = server.send("/v1/images/upscale", content, model=COMPACT)
        answers.append((answer.status, answer.error if answer.status != 200 else ""))

    clients = [threading.Thread(target=send) for _ in range(4)]
    for client in clients:
        client.start()
    if (pid := server.worker_pid("realesr.server.inspector")) is not None:
        os.kill(pid, signal.SIGKILL)
    for client in clients:
        client.join()
    if len(answers) < len(clients):
        return CRASH, f"{len(answers)} of {len(clients)} were answered"
    wrong = [answer for answer in answers if answer[0] != 200 and "was ended by SIGKILL" not in answer[1]]
    return (WRONG if wrong else RIGHT), str(answers)


def _next_job(server: ServeChild, content: bytes) -> tuple[str, str]:
    """Return the verdict on a job that nothing disturbs."""
    answer = server.send("/v1/images/upscale", content, model=COMPACT, format="png")
    return (RIGHT, "") if answer.status == 200 else (WRONG, answer.error)


# Cancels


def inject_cancels(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Cancel `trials` jobs at random moments, every fourth while another one runs before it."""
    dice, content, small = random.Random(seed), picture(JOB_PX), picture(SMALL_PX)
    answer_ms, free_s = [], []
    with serving(folder) as server:
        seconds = _seconds_of_a_job(server, content)
        for number in range(trials):
            before = submitted(server, content) if number % 4 == 3 else None
            id = submitted(server, content)
            time.sleep(dice.uniform(0, 1.2 * seconds))
            began = time.monotonic()
            told = server.ask("DELETE", f"/api/jobs/{id}").json
            answer_ms.append((time.monotonic() - began) * 1e3)
            if before is not None:
                server.ask("DELETE", f"/api/jobs/{before}")
            is_free = wait_until(lambda: not server.metric("jobs_running"), _JOB_SECONDS)
            free_s.append(time.monotonic() - began)
            tally.add(
                "cancelled, or done before", RIGHT if told["state"] in ("cancelled", "done") else WRONG, str(told)
            )
            in_time = is_free and free_s[-1] <= max(MOST_CANCEL_SECONDS, seconds)
            tally.add(
                "the worker is free within a second, or the time of a tile",
                RIGHT if in_time else HANG,
                f"{free_s[-1]:.2f} s, {told}",
            )
            is_gone = wait_until(lambda: not server.job_folders(), 5)
            tally.add("its files are gone", RIGHT if is_gone else LEFTOVER, str(told))
        tally.add("the next job succeeds", *_next_job(server, small))
        tally.figures |= {
            "job_seconds": round(seconds, 2),
            "answer_ms_median": round(statistics.median(answer_ms), 1),
            "answer_ms_most": round(max(answer_ms), 1),
            "free_s_median": round(statistics.median(free_s), 3),
            "free_s_most": round(max(free_s), 3),
            "worker_restarts": server.metric("worker_restarts_total"),
        }
        judge_end(tally, server)


# Deletes


def inject_deletes(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Delete `trials` jobs while all that there is of them is fetched: it must come whole, or be told to be gone."""
    dice, content = random.Random(seed), picture(SHOWN_PX)
    with serving(folder, "--engine", "nearest") as server:
        for number in range(trials):
            id = submitted(server, content)
            if number % 3:
                over(server, id)
            answers: list[tuple[str, str]] = []
            threads = [threading.Thread(target=_fetch, args=(server, f"/api/jobs/{id}/{end}", answers)) for end in ENDS]
            threads.append(threading.Thread(target=_fetch, args=(server, f"/api/archive?ids={id}", answers)))
            for thread in threads:
                thread.start()
            time.sleep(dice.uniform(0, 0.3))
            deleted = [server.ask("DELETE", f"/api/jobs/{id}").status for _ in range(2)]
            for thread in threads:
                thread.join()
            for verdict, why in answers:
                tally.add("what is fetched comes whole, or is told to be gone", verdict, f"trial {number}: {why}")
            is_right = deleted[0] == 200 and deleted[1] in (200, 404)
            tally.add("the delete is answered", RIGHT if is_right else WRONG, str(deleted))
            is_gone = wait_until(lambda: not server.job_folders(), 5)
            tally.add("its files are gone", RIGHT if is_gone else LEFTOVER, str(server.job_folders()))
        judge_end(tally, server)


def _fetch(server: ServeChild, path: str, answers: list[tuple[str, str]]) -> None:
    """Fetch something of a job; note the verdict."""
    try:
        answer = server.ask("GET", path)
    except (OSError, http.client.HTTPException) as error:
        answers.append((CRASH, f"{path}: {error!r}"))
        return
    verdict = RIGHT if answer.status == 200 else REFUSED if answer.status in (404, 409) else WRONG
    answers.append((verdict, f"{path}: {answer.status} {answer.error if answer.status != 200 else ''}"))
