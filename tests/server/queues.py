"""A queue whose jobs end when a test says so, without processes; requests to an application that has it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from PIL import Image

from realesr.errors import InputError, UsageError
from realesr.server.app import build_app
from realesr.server.job_queue import JobQueue
from realesr.server.jobs import Job
from realesr.server.settings import ServerSettings
from realesr.server.storage import Storage

HERE = "http://127.0.0.1:8765"
MODEL = {
    "name": "net",
    "scale": 4,
    "purpose": "tests",
    "licence": None,
    "bytes": 1,
    "on_disk": True,
    "is_default": True,
}


async def nothing(*_: object) -> None:
    """Do nothing."""


class FakeWorker:
    """Enlarges by Pillow, once the gate is open."""

    def __init__(self, *, is_open: bool) -> None:
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()
        self.cancelled: list[str] = []
        self.failure: dict[str, Any] | None = None
        self.notices: list[str] = []
        self.child = SimpleNamespace(start=nothing, end=nothing, starts=1)

    async def upscale(self, job: Job) -> AsyncGenerator[dict[str, Any]]:
        """Yield what a worker answers."""
        yield {"model": "net"}
        yield {"progress": [1, 4]}
        gate, over = asyncio.create_task(self.gate.wait()), asyncio.create_task(job.over.wait())
        await asyncio.wait((gate, over), return_when=asyncio.FIRST_COMPLETED)
        gate.cancel()
        over.cancel()
        if job.is_over:
            return
        if self.failure:
            yield self.failure
            return
        with Image.open(job.source) as image:
            size = image.width * 4, image.height * 4
            image.convert("RGB").resize(size).save(job.result, "PNG")
        facts = {"output_px": size, "format": "png", "bytes": job.result.stat().st_size, "model": "net"}
        yield {"done": {**facts, "seconds": 0.1, "notices": self.notices}}

    async def cancel(self, job: Job) -> None:
        """Note that the job was cancelled."""
        self.cancelled.append(job.id)


class FakeInspector:
    """Looks at images by Pillow."""

    def __init__(self) -> None:
        self.child = SimpleNamespace(start=nothing, end=nothing, starts=1)
        self.asked: list[tuple[Any, ...]] = []

    async def models(self) -> list[dict[str, Any]]:
        """Return the networks."""
        return [MODEL]

    async def check_model(self, name: str) -> None:
        """Say that there is no network of this name, or one that has been pulled meanwhile."""
        if name != "pulled":
            raise UsageError(f"got model {name!r}, expected one of net", option="model")

    async def probe(self, job: Job) -> dict[str, Any]:
        """Return the size of an upload."""
        try:
            with Image.open(job.source) as image:
                width, height = image.size
        except OSError as error:
            raise InputError(job.in_public_words(f"{job.source} is not an image")) from error
        return {"width": width, "height": height, "kind": "png", "work_px": width * height}

    async def thumbnail(self, job: Job) -> Path:
        """Return a picture."""
        return self.picture(job, "thumbnail")

    async def preview(self, job: Job, side: str) -> Path:
        """Return a picture."""
        return self.picture(job, "preview", side)

    async def tile(self, job: Job, side: str, level: int, x: int, y: int) -> Path:
        """Return a picture."""
        return self.picture(job, "tile", side, level, x, y)

    def picture(self, job: Job, *asked: Any) -> Path:
        """Return a JPEG file, and note what was asked for."""
        self.asked.append(asked)
        Image.new("RGB", (8, 8)).save(job.folder / "picture.jpg")
        return job.folder / "picture.jpg"

    async def end(self) -> None:
        """Do nothing."""


class Site:
    """A server without a socket."""

    def __init__(self, folder: Path, *, is_open: bool, **settings: Any) -> None:
        self.settings = ServerSettings(**settings)
        self.worker, self.inspector, self.storage = FakeWorker(is_open=is_open), FakeInspector(), Storage(folder)
        self.queue = JobQueue(self.settings, [self.worker], self.inspector, self.storage)  # type: ignore[list-item,arg-type]
        self.app = build_app(self.settings, self.queue)

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Return a client with its own cookies."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=HERE, **options)

    @asynccontextmanager
    async def browser(self) -> AsyncGenerator[httpx.AsyncClient]:
        """Yield a client that has opened the page, and so has an owner's cookie."""
        async with self.client() as client:
            assert (await client.get("/")).status_code == 200
            yield client

    @property
    def folders(self) -> list[str]:
        """Return the names of what lies in the server's folder."""
        return sorted(path.name for path in self.storage.folder.iterdir())


def visited(
    folder: Path, visit: Callable[[Site], Coroutine[Any, Any, None]], *, is_open: bool = True, **settings: Any
) -> None:
    """Run a visit to a server that is started before and closed afterwards."""

    async def run() -> None:
        site = Site(folder, is_open=is_open, **settings)
        await site.queue.start()
        try:
            async with asyncio.timeout(20):
                await visit(site)
        finally:
            await site.queue.close(0)

    asyncio.run(run())
