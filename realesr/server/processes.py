"""The server's side of its child processes: a `Worker` enlarges, an `Inspector` looks at files."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from realesr import errors
from realesr.errors import EngineError, RealesrError

from .child import Answer, Child
from .jobs import Job
from .settings import ServerSettings
from .storage import Storage

CANCEL_SECONDS = 10.0
"""How long a worker may take to give a job up; most engines cannot be interrupted within a tile."""
SECONDS_BETWEEN_CANCELS = 0.2
INSPECTION_SECONDS = 120.0
"""How long looking at one file may take; then the process is killed, for the file may be made to take long."""

Side = Literal["source", "result"]


class Worker:
    """A process that runs networks on one device, one job at a time."""

    def __init__(self, settings: ServerSettings, device: str, storage: Storage, number: int) -> None:
        self.device = device
        self._settings = settings
        options = {name: getattr(settings, name) for name in ("engine", "precision", "threads")}
        self.child = _child(
            "realesr.server.worker",
            (json.dumps({**options, "device": device}),),
            "runs the networks",
            storage,
            f"worker-{number}",
        )

    async def upscale(self, job: Job) -> AsyncGenerator[Answer]:
        """Enlarge a job's upload into its result, and yield the worker's answers; see `realesr.server.worker`.

        Raises:
            ChildDied: the process has died.
        """
        request = {
            "do": "upscale",
            "source": str(job.source),
            "target": str(job.result),
            "options": job.options.to_json(),
            "most_pixels": self._settings.most_pixels,
        }
        async with aclosing(self.child.ask(request)) as answers:
            async for answer in answers:
                yield answer

    async def cancel(self, job: Job) -> None:
        """Make the worker give up the job that it is at; a process that does not within a while is killed.

        It is told again and again: a process that is being started has not been asked for the job yet.
        """
        last = time.monotonic() + CANCEL_SECONDS
        while not job.given_up.is_set() and time.monotonic() < last:
            self.child.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(job.given_up.wait(), SECONDS_BETWEEN_CANCELS)
        if not job.given_up.is_set():
            self.child.kill()


class Inspector:
    """Processes that look at files: one at their size and thumbnails, one at previews and tiles, which take longer."""

    def __init__(self, settings: ServerSettings, storage: Storage) -> None:
        self._settings = settings
        self.child, self.viewer = (
            _child("realesr.server.inspector", (), "looks at images", storage, name) for name in ("inspector", "viewer")
        )
        self._running: dict[Path, asyncio.Task[dict[str, Any]]] = {}

    async def end(self) -> None:
        """Let the processes end."""
        await asyncio.gather(self.child.end(), self.viewer.end())

    async def models(self) -> list[dict[str, Any]]:
        """Return the networks that may be asked for: name, scale, purpose, licence, bytes, on_disk, is_default."""
        found: list[dict[str, Any]] = (await self._done(self.child, {"do": "models"}))["models"]
        return found

    async def check_model(self, name: str) -> None:
        """Raise UsageError, which names those that are alike, where there is no network of this name."""
        await self._done(self.child, {"do": "check_model", "model": name})

    async def probe(self, job: Job) -> dict[str, Any]:
        """Return width, height, kind and work_px of a job's upload, and the width and height of its result.

        Raises:
            InputError: the upload is no image that is read, or too large.
            UsageError: there is no such network, or the image cannot come to the size that is asked for.
            LargeEnough: the image is as large as asked for.
        """
        request = {
            "do": "probe",
            "source": str(job.source),
            "options": job.options.to_json(),
            "most_pixels": self._settings.most_pixels,
            "most_result_pixels": self._settings.most_result_pixels,
        }
        return await self._shared(job.source, job, self.child, request)

    async def thumbnail(self, job: Job) -> Path:
        """Return a JPEG file of a job's upload, at most 320 px wide and high."""
        return await self._made(self.child, job, "thumbnail.jpg", {"do": "display", "side": "source", "most_px": 320})

    async def preview(self, job: Job, side: Side) -> Path:
        """Return a JPEG file of a job's upload or result, at most 2048 px wide and high."""
        request = {"do": "display", "side": side, "most_px": 2048}
        return await self._made(self.viewer, job, f"{side}-preview.jpg", request)

    async def tile(self, job: Job, side: Side, level: int, x: int, y: int) -> Path:
        """Return a JPEG file of one tile of the result, or of the upload enlarged to the result's size by Lanczos.

        Raises:
            UsageError: there is no such tile; see `realesr.server.tile_grid`.
        """
        assert job.output is not None
        size = [job.output.width_px, job.output.height_px]
        request = {"do": "tile", "side": side, "size": size, "level": level, "x": x, "y": y}
        return await self._made(self.viewer, job, f"{side}-{level}-{x}-{y}.jpg", request)

    async def _made(self, child: Child, job: Job, name: str, request: dict[str, Any]) -> Path:
        """Return a file that the process makes of a job's, unless it has been made before."""
        target = job.folder / name
        if target.exists():
            return target
        source = job.source if request["side"] == "source" else job.result
        asked = {**request, "source": str(source), "target": str(target), "folder": str(job.folder)}
        await self._shared(target, job, child, asked)
        return target

    async def _shared(self, key: Path, job: Job, child: Child, request: dict[str, Any]) -> dict[str, Any]:
        """Return what a process answers; who asks for the same meanwhile gets the same, and who leaves stops nothing.

        Raises:
            RealesrError: what the process reports, without a path of this machine in its message.
        """
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._done(child, request))
            task.add_done_callback(lambda ended: self._forget(key, ended))
        try:
            return await asyncio.shield(task)
        except RealesrError as error:
            raise type(error)(job.in_public_words(str(error)), option=error.option) from error

    def _forget(self, key: Path, task: asyncio.Task[dict[str, Any]]) -> None:
        """Forget a task that has ended, and note its error, which nobody may have waited for."""
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def _done(self, child: Child, request: dict[str, Any]) -> dict[str, Any]:
        """Return what the process answers; raise the error that it reports."""
        done: dict[str, Any] = {}
        async with aclosing(child.ask(request, INSPECTION_SECONDS)) as answers:
            async for answer in answers:
                if "failed" in answer:
                    raise error_from(answer)
                done = answer.get("done", done)
        return done


def error_from(answer: Answer) -> RealesrError:
    """Return the error that a child process reports, of its class."""
    kind = getattr(errors, str(answer.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, RealesrError)):
        kind = EngineError
    return kind(str(answer["failed"]), option=answer.get("option"))


def _child(module: str, arguments: tuple[str, ...], purpose: str, storage: Storage, name: str) -> Child:
    """Return a child process whose temporary files lie in a folder of the server's, emptied at each start."""
    folder = storage.new_folder(name)

    def tidy() -> None:
        storage.empty(folder)

    variables = {"TMPDIR": str(folder), "VIPS_BLOCK_UNTRUSTED": "1"}
    return Child(module, arguments, purpose=purpose, variables=variables, on_start=tidy)
