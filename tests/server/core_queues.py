"""Queues for tests of the core: with workers that do as a test says, or with the real processes."""

import asyncio
import io
import os
import tempfile
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from realesr.server.job_options import JobOptions
from realesr.server.job_queue import JobQueue, open_queue
from realesr.server.jobs import Job
from realesr.server.settings import ServerSettings
from realesr.server.storage import open_storage

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], seconds: float = 60) -> T:
    """Run a test's coroutine, which may take no longer than this."""
    return asyncio.run(asyncio.wait_for(work, seconds))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's place for temporary files, for one test alone."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


async def nothing(*_: object) -> None:
    """Do nothing."""


class FakeWorker:
    """Ends a job when the test says so, and tells the speed that the test has set."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.speed: float | None = None
        self.finish = asyncio.Event()
        self.child = SimpleNamespace(start=nothing, end=nothing, starts=1)

    async def upscale(self, job: Job) -> AsyncGenerator[dict[str, Any]]:
        """Yield what a worker answers."""
        self.begun.append(job.name)
        yield {"model": "net"} | ({} if self.speed is None else {"speed": self.speed})
        yield {"progress": [0, job.work_px]}
        tasks = [asyncio.create_task(event.wait()) for event in (self.finish, job.over)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        if job.is_over:
            yield {"failed": "cancelled", "kind": "Cancelled"}
            return
        self.finish.clear()
        job.result.write_bytes(b"result")
        yield {
            "done": {
                "output_px": [4, 4],
                "format": "png",
                "bytes": 6,
                "model": "net",
                "seconds": 0.1,
                "notices": [f"{job.source} is small"],
            }
        }

    async def cancel(self, job: Job) -> None:
        """Wait until the job has been given up."""
        await job.given_up.wait()


class FakeInspector:
    """Knows a job's work by its name: "big 500" has 500 pixels."""

    end = nothing

    async def models(self) -> list[dict[str, Any]]:
        """Return no networks."""
        return []

    async def probe(self, job: Job) -> dict[str, Any]:
        """Return the facts of an upload."""
        work_px = int(job.name.split()[1])
        return {"width": 1, "height": 1, "kind": "png", "work_px": work_px, "output": [4, 4]}


@asynccontextmanager
async def fake_queue(workers: int = 1, **settings: Any) -> AsyncGenerator[tuple[JobQueue, list[FakeWorker]]]:
    """Yield a queue without processes, and its workers."""
    fakes = [FakeWorker() for _ in range(workers)]
    with open_storage() as storage:
        queue = JobQueue(ServerSettings(**settings), fakes, FakeInspector(), storage)  # type: ignore[arg-type]
        await queue.start()
        try:
            yield queue, fakes
        finally:
            await queue.close(0)


@asynccontextmanager
async def real_queue(**settings: Any) -> AsyncGenerator[JobQueue]:
    """Yield a queue with its processes and the engine "nearest"."""
    async with open_queue(ServerSettings(engine="nearest", grace_seconds=0, **settings)) as queue:
        yield queue


async def submitted(queue: JobQueue, name: str, owner: str = "me", content: bytes = b"image", **options: Any) -> Job:
    """Submit an upload."""
    with queue.reserve(owner) as job:
        job.source.write_bytes(content)
        job.name, job.options = name, JobOptions(**options)
        await queue.submit(job)
    return job


async def until(condition: Any, seconds: float = 20) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def png(width: int, height: int) -> bytes:
    """Return the bytes of a PNG file of random pixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def large_ppm(width: int = 2000, height: int = 1500) -> bytes:
    """Return an image that takes the worker seconds."""
    return b"P6 %d %d 255\n" % (width, height) + bytes(width * height * 3)


def is_alive(pid: int) -> bool:
    """Return whether there is a process, other than one that has ended and was not waited for."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
