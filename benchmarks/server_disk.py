"""Fills the disk that a server keeps its files on, and frees it again: a small file system in memory stands for it."""

import contextlib
import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults_disks import small_disk
from faults_verdicts import LEFTOVER, REFUSED, RIGHT, WRONG, Tally
from server_child import COMPACT, Answer, ServeChild, serving, wait_until
from server_faults import job, over, picture, submitted
from server_sockets import judge_end

DISK_MB = 96
KEPT_FREE_MB = 50
"""With less room than this the server takes no uploads (`realesr.server.storage.LEAST_FREE_BYTES`)."""
SMALL_PX = (24, 32)
LARGE_PX = (1600, 2000)
"""Height and width of an image whose result takes seconds to write, and more room than a full disk has."""
_MB = 1_000_000


def inject_full_disk(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Fill the disk `trials` times, in each way in turn; after each there is room again, and the server works on."""
    try:
        with small_disk(folder / "disk", f"size={DISK_MB}m") as disk, serving(disk, "--engine", "nearest") as server:
            large = picture(LARGE_PX)
            ways = [_before_an_upload, _in_an_upload, _in_a_job, _in_a_preview]
            for number, way in zip(range(trials), itertools.cycle(ways), strict=False):
                subject, verdict, why = way(server, disk, large)
                tally.add(subject, verdict, f"trial {number}: {why}")
                _judge_aftermath(tally, server)
            judge_end(tally, server)
    except (OSError, subprocess.CalledProcessError) as error:
        tally.skipped["full disk"] = f"no file system can be mounted here ({error})"


def _judge_aftermath(tally: Tally, server: ServeChild) -> None:
    """Judge what is left once there is room again, and whether the next job succeeds."""
    is_gone = wait_until(lambda: not server.job_folders(), 5)
    tally.add("no file is left", RIGHT if is_gone else LEFTOVER, str(server.job_folders()))
    answer = server.send("/v1/images/upscale", picture(SMALL_PX), model=COMPACT)
    tally.add("with room again, the next job succeeds", RIGHT if answer.status == 200 else WRONG, answer.error)


@contextmanager
def full(disk: Path, free_mb: float = 0.0) -> Iterator[None]:
    """Leave so much room on the disk, while the block runs."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while _free_mb(disk) > free_mb + 0.3:
            file.write(bytes(min(_MB, round((_free_mb(disk) - free_mb) * _MB))))
        if not free_mb:
            while file.write(bytes(4096)):
                pass
    try:
        yield
    finally:
        filler.unlink()


def _free_mb(disk: Path) -> float:
    return shutil.disk_usage(disk).free / _MB


Way = Callable[[ServeChild, Path, bytes], tuple[str, str, str]]


def _before_an_upload(server: ServeChild, disk: Path, large: bytes) -> tuple[str, str, str]:
    """Fill the disk, then send."""
    with full(disk):
        answer = server.send("/api/jobs", picture(SMALL_PX), model=COMPACT)
    is_right = answer.status == 503 and "disk is full" in answer.error and "retry-after" in answer.headers
    return "full before an upload: 503", REFUSED if is_right else WRONG, _told(answer)


def _in_an_upload(server: ServeChild, disk: Path, large: bytes) -> tuple[str, str, str]:
    """Leave room for the beginning of an upload alone."""
    with full(disk, KEPT_FREE_MB + 4):
        answer = server.send("/v1/images/upscale", bytes(80 * _MB), model=COMPACT)
    is_right = answer.status == 507 and "cannot be written" in answer.error
    return "full in an upload: 507", REFUSED if is_right else WRONG, _told(answer)


def _in_a_job(server: ServeChild, disk: Path, large: bytes) -> tuple[str, str, str]:
    """Fill the disk as soon as a job runs."""
    id = submitted(server, large)
    wait_until(lambda: job(server, id)["state"] != "queued", 60)
    with full(disk):
        told = over(server, id)
        is_asked = server.ask("GET", "/api/models").status == 200
    server.ask("DELETE", f"/api/jobs/{id}")
    error: dict[str, Any] = told["error"] or {}
    is_right = is_asked and told["state"] == "failed" and "disk is full" in error["message"]
    return "full while a job runs: it fails with the reason", REFUSED if is_right else WRONG, str(told)


def _in_a_preview(server: ServeChild, disk: Path, large: bytes) -> tuple[str, str, str]:
    """Fill the disk, then ask for pictures of a job that is done."""
    id = submitted(server, picture((300, 400)))
    over(server, id)
    with full(disk):
        names = ("thumbnail", "preview", "tiles/result/1/0_0.jpg")
        answers = [server.ask("GET", f"/api/jobs/{id}/{name}") for name in names]
        result = server.ask("GET", f"/api/jobs/{id}/result")
    again = [server.ask("GET", f"/api/jobs/{id}/{name}").status for name in names]
    server.ask("DELETE", f"/api/jobs/{id}")
    is_right = {answer.status for answer in answers} == {507} and result.status == 200 and set(again) == {200}
    why = "; ".join(map(_told, answers)) + f"; result {result.status}; again {again}"
    return "full when pictures are made: 507, later 200", REFUSED if is_right else WRONG, why


def _told(answer: Answer) -> str:
    return f"{answer.status} {answer.error}"
