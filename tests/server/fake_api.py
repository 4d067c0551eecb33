"""An API as the page of `realesr serve` expects it, in memory: jobs progress by a timer, and Pillow makes the pictures.

A file whose name has "broken" in it fails, one with "fetch" fetches its network first. `hold` keeps jobs at half of
their pixels, and the queue in its order, until it is taken away.
"""

import asyncio
import contextlib
import io
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image, ImageFilter, ImageOps
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import realesr

PAGE = Path(realesr.__file__).parent / "server" / "page"
CSP = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
TILE_PX = 512
STEPS = 10
MODELS = [
    ("realesr-general-x4v3", 4, "photos; fast, with adjustable denoising", "BSD-3-Clause", 4885111, True),
    ("realesrgan-x4plus", 4, "photos of any kind; the best detail, slow", "BSD-3-Clause", 67040989, True),
    ("realesrgan-x2plus", 2, "photos at scale 2; four times as fast as x4plus", "BSD-3-Clause", 67061725, False),
    ("realesrgan-x4plus-anime", 4, "drawn illustrations", "BSD-3-Clause", 17938799, False),
    ("span-x4", 4, "clean images that were only shrunk; small and fast", "Apache-2.0", None, False),
]


def enlarge(image: Image.Image, scale: float) -> Image.Image:
    """Return the image as the fake network enlarges it: sharpened, so that a picture shows which side it is of."""
    large = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return large.filter(ImageFilter.UnsharpMask(6, 150, 2))


def jpeg(image: Image.Image, most_px: int | None = None) -> Response:
    """Return a picture, at most `most_px` px a side."""
    image = image.convert("RGB")
    if most_px is not None:
        image.thumbnail((most_px, most_px))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return Response(file.getvalue(), media_type="image/jpeg")


def refused(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "kind": kind}}, status, headers)


class FakeApi:
    """The fake, with what tests turn and look at."""

    def __init__(self) -> None:
        self.seconds = 0.3
        """Duration of a job."""
        self.hold = False
        self.queue_length = 64
        self.answer_seconds = 0.0
        """How long an upload waits for its answer."""
        self.models_seconds = 0.0
        self.enlarge: Callable[[Image.Image, float], Image.Image] = enlarge
        self.upload_bytes = 200_000_000
        self.fields: list[dict[str, str]] = []
        """Text fields of the requests, in their order."""
        self.tiles: list[str] = []
        """Paths of the tiles that were asked for."""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.images: dict[str, Image.Image] = {}
        self.results: dict[str, Image.Image] = {}
        self.levels: dict[tuple[str, str, int], Image.Image] = {}

    def reset(self) -> None:
        """Forget all jobs and settings."""
        self.__init__()  # type: ignore[misc]

    @property
    def waiting(self) -> list[dict[str, Any]]:
        return [job for job in self.jobs.values() if job["state"] == "queued"]

    async def run(self) -> None:
        """Work through the queue, one job at a time."""
        while True:
            await asyncio.sleep(0.01)
            if self.waiting:
                await self._work(self.waiting[0])

    async def _work(self, job: dict[str, Any]) -> None:
        job.update(state="running", place=None, model=job["options"]["model"])
        self._number()
        if "fetch" in job["name"]:
            for done in range(STEPS):
                job["fetching"] = {"model": job["model"], "done": done * 6_700_000, "total": 67_000_000}
                await asyncio.sleep(self.seconds / STEPS)
            job["fetching"] = None
        for step in range(STEPS):
            await asyncio.sleep(self.seconds / STEPS)
            while self.hold and step >= STEPS / 2 and job["state"] == "running":
                await asyncio.sleep(0.01)
            if job["state"] != "running" or job["id"] not in self.jobs:
                return
            share = (step + 1) / STEPS
            job.update(share=share, pixels_done=round(job["pixels_total"] * share))
            job["seconds_left"] = round(self.seconds * (1 - share), 1)
        self._finish(job)

    def _number(self) -> None:
        """Give those that wait their places."""
        for place, job in enumerate(self.waiting):
            job["place"] = place + 1

    def _finish(self, job: dict[str, Any]) -> None:
        if "broken" in job["name"]:
            message = f"{job['name']}: the file ends after 61 of its 480 rows; allow_damaged enlarges what there is"
            job.update(state="failed", error={"message": message, "kind": "InputError"})
            return
        image = self.results[job["id"]] = self.enlarge(self.images[job["id"]], job["options"]["scale"] or 4)
        highest = 0
        while max(image.size) > TILE_PX << highest:
            highest += 1
        output = {"width": image.width, "height": image.height, "format": job["options"]["format"] or "png"}
        output |= {"bytes": image.width * image.height, "tile_px": TILE_PX, "highest_level": highest}
        job.update(state="done", share=1.0, seconds_left=0, seconds=round(self.seconds, 1), output=output)

    def app(self) -> Starlette:
        """Return the ASGI application."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            task = asyncio.create_task(self.run())
            yield
            task.cancel()

        pictures = [
            Route(f"/api/jobs/{{id}}/{name}", getattr(self, f"get_{name}"))
            for name in ("events", "thumbnail", "source", "preview")
        ]
        return Starlette(
            lifespan=lifespan,
            exception_handlers={KeyError: self.on_missing},
            routes=[
                Route("/", self.get_page),
                Route("/api/models", self.get_models),
                Route("/api/jobs", self.post_job, methods=["POST"]),
                Route("/api/jobs", self.get_jobs),
                Route("/api/jobs/{id}", self.delete_job, methods=["DELETE"]),
                Route("/api/jobs/{id}/tiles/{side}/{level:int}/{x:int}_{y:int}.jpg", self.get_tile),
                *pictures,
                Mount("/static", StaticFiles(directory=PAGE)),
            ],
        )

    async def on_missing(self, _: Request, __: Exception) -> Response:
        return refused(404, "there is no such job, or no longer", "NotFound")

    async def get_page(self, _: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": CSP})

    async def get_models(self, _: Request) -> Response:
        await asyncio.sleep(self.models_seconds)
        names = ("name", "scale", "purpose", "licence", "bytes", "on_disk")
        models = [
            dict(zip(names, model, strict=True)) | {"is_default": place == 0} for place, model in enumerate(MODELS)
        ]
        limits = {"upload_bytes": self.upload_bytes, "pixels": 500_000_000, "scale": 16}
        return JSONResponse({"models": models, "formats": ["png", "jpeg", "tiff", "webp", "avif"], "limits": limits})

    async def post_job(self, request: Request) -> Response:
        async with request.form() as form:
            upload = form["image"]
            assert isinstance(upload, UploadFile)
            name, content = upload.filename or "image", await upload.read()
            fields = {key: value for key, value in form.items() if isinstance(value, str)}
        await asyncio.sleep(self.answer_seconds)
        if len(self.waiting) >= self.queue_length:
            return refused(503, f"the queue is full: {self.queue_length} wait", "QueueFull", {"Retry-After": "1"})
        self.fields.append(fields)
        try:
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
            image.load()
        except OSError:
            message = f"{name}: got a file that is no image, expected JPEG, PNG, TIFF, WebP or AVIF"
            return refused(422, message, "InputError")
        job = self._new_job(name, fields, image)
        return JSONResponse(job, 202, {"Location": f"/api/jobs/{job['id']}"})

    def _new_job(self, name: str, fields: dict[str, str], image: Image.Image) -> dict[str, Any]:
        scale = float(fields["scale"]) if "scale" in fields else None
        options = {"model": fields.get("model", MODELS[0][0]), "scale": scale, "format": fields.get("format")}
        job: dict[str, Any] = {
            "id": secrets.token_urlsafe(16),
            "name": name,
            "state": "queued",
            "place": len(self.waiting) + 1,
            "share": 0.0,
            "pixels_done": 0,
            "pixels_total": image.width * image.height,
            "seconds_left": None,
            "estimate_seconds": self.seconds,
            "created": time.time(),
            "error": None,
            "notices": [],
            "options": options,
            "input": {"width": image.width, "height": image.height},
            "output": None,
            "model": None,
            "seconds": None,
            "fetching": None,
        }
        self.images[job["id"]] = image
        self.jobs[job["id"]] = job
        return job

    async def get_jobs(self, _: Request) -> Response:
        return JSONResponse({"jobs": list(self.jobs.values())})

    async def delete_job(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]]
        if job["state"] in ("queued", "running"):
            job.update(state="cancelled", place=None)
            self._number()
        else:
            del self.jobs[job["id"]]
        return JSONResponse(job)

    async def get_events(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]]

        async def changes() -> AsyncIterator[str]:
            told = ""
            while True:
                text = json.dumps(job)
                if text != told:
                    yield f"event: job\ndata: {text}\n\n"
                told = text
                if job["state"] not in ("queued", "running") or await request.is_disconnected():
                    return
                await asyncio.sleep(0.03)

        return StreamingResponse(changes(), media_type="text/event-stream")

    async def get_thumbnail(self, request: Request) -> Response:
        return jpeg(self.images[request.path_params["id"]], 320)

    async def get_source(self, request: Request) -> Response:
        return jpeg(self.images[request.path_params["id"]], 2048)

    async def get_preview(self, request: Request) -> Response:
        return jpeg(self.results[request.path_params["id"]], 2048)

    async def get_tile(self, request: Request) -> Response:
        self.tiles.append(request.url.path)
        id_, side, number = (request.path_params[name] for name in ("id", "side", "level"))
        level = self.levels.get((id_, side, number))
        if level is None:
            result = self.results[id_]
            halvings = self.jobs[id_]["output"]["highest_level"] - number
            whole = result if side == "result" else self.images[id_].resize(result.size, Image.Resampling.LANCZOS)
            level = whole.resize((-(-whole.width >> halvings), -(-whole.height >> halvings)))
            self.levels[id_, side, number] = level
        left, top = (request.path_params[name] * TILE_PX for name in ("x", "y"))
        return jpeg(level.crop((left, top, min(left + TILE_PX, level.width), min(top + TILE_PX, level.height))))


@contextlib.contextmanager
def served(api: FakeApi) -> Iterator[str]:
    """Serve the fake on a free port of this computer; give its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(api.app(), log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()
