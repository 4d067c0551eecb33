"""The routes: which address is answered by what. Handlers ask the queue and the inspector, and compute nothing."""

import asyncio
import contextlib
import json
import mimetypes
import re
from collections import Counter
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from realesr.errors import RealesrError
from realesr.options import MAX_SCALE

from . import refusals
from .archive import MOST_FILES, zip_chunks
from .early_answers import EarlyAnswers
from .events import event_response
from .file_names import attachment, harmless_name
from .guard import Guard
from .job_file import JobFile
from .job_options import JobOptions
from .job_queue import JobQueue
from .jobs import MEDIA_TYPES, Job
from .metrics import MEDIA_TYPE, metrics_text
from .openapi import document
from .refusals import Refusal
from .request_log import RequestLog
from .settings import ServerSettings
from .uploads import check_announced, read_upload
from .while_kept import WhileKept

PAGE = Path(__file__).parent / "page"
KEPT = {"Cache-Control": "private, max-age=3600, immutable"}
"""For pictures of a job, which never change."""

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def build_app(settings: ServerSettings, queue: JobQueue) -> Starlette:
    """Return the application, for a queue that is started and closed by somebody else."""
    mimetypes.add_type("text/javascript", ".js")  # Windows may say text/plain, and then no browser runs it
    answers: Counter[int] = Counter()
    app = Starlette(
        routes=routes(),
        middleware=[
            Middleware(EarlyAnswers),
            Middleware(RequestLog, answers=answers),
            Middleware(Guard, settings=settings),
        ],
        exception_handlers={
            Refusal: refusals.on_refusal,
            RealesrError: refusals.on_own_error,
            ClientDisconnect: refusals.on_leaving,
            404: refusals.on_missing,
            405: refusals.on_wrong_method,
            Exception: refusals.on_fault,
        },
    )
    app.router.redirect_slashes = False  # the redirection would name http and a host that a proxy may not have
    app.state.settings, app.state.queue, app.state.answers = settings, queue, answers
    return app


def routes() -> list[Route | Mount]:
    """Return the routes."""
    job = "/api/jobs/{id}"
    return [
        Route("/", page),
        Mount("/static", StaticFiles(directory=PAGE)),
        Route("/v1/images/upscale", upscale, methods=["POST"]),
        Route("/api/models", list_models),
        Route("/api/jobs", answer_jobs, methods=["GET", "POST"]),
        Route(job, answer_job, methods=["GET", "DELETE"]),
        Route(f"{job}/events", watch_job),
        Route(f"{job}/result", download_result),
        Route(f"{job}/thumbnail", show_thumbnail),
        Route(f"{job}/source", show_source),
        Route(f"{job}/preview", show_preview),
        Route(f"{job}/tiles/{{side}}/{{level}}/{{x}}_{{y}}.jpg", show_tile),
        Route("/api/archive", download_archive),
        Route("/healthz", tell_health),
        Route("/readyz", tell_readiness),
        Route("/metrics", tell_metrics),
        Route("/openapi.json", tell_openapi),
    ]


# Jobs


async def answer_jobs(request: Request) -> Response:
    """Take an upload, or list jobs. One address has one route, so that Allow names all of its methods."""
    return await (submit if request.method == "POST" else list_jobs)(request)


async def answer_job(request: Request) -> Response:
    """Delete a job, or show it."""
    return await (delete_job if request.method == "DELETE" else show_job)(request)


async def submit(request: Request) -> Response:
    """Take an upload, and answer with its job."""
    job = await job_from(request, request.scope["owner"])
    address = request.scope.get("root_path", "") + f"/api/jobs/{job.id}"
    return JSONResponse(job.to_json(), 202, {"Location": address})


async def upscale(request: Request) -> Response | WhileKept:
    """Take an upload, and answer with the enlarged image; or with its job, where the client prefers not to wait."""
    preferred = request.headers.get("prefer", "").lower()
    if "respond-async" in (part.partition(";")[0].strip() for part in preferred.split(",")):
        answer = await submit(request)
        answer.headers["Preference-Applied"] = "respond-async"
        return answer
    queue, job = queue_of(request), await job_from(request, "")
    is_sent = False
    try:
        await over_or_left(request, job)
        if job.state == "done":
            is_sent = True
            return result_of(queue, job, BackgroundTask(queue.remove, job))
        raise refusal_of(job)
    finally:
        if not is_sent:
            await queue.remove(job)


async def job_from(request: Request, owner: str) -> Job:
    """Return the job of an upload, submitted; what a client that keeps no cookies sends belongs to nobody.

    Raises:
        Refusal: the form is not as it should be.
        RealesrError: the queue is full, an option makes no sense, or the image cannot be read.
    """
    queue, settings = queue_of(request), request.app.state.settings

    async def check_fields(fields: Mapping[str, str]) -> None:
        await queue.check_model(JobOptions.from_fields(fields).model)

    with queue.reserve(owner) as job:
        check_announced(request, settings.most_upload_bytes)
        upload = await read_upload(request, job.source, settings.most_upload_bytes, check_fields)
        job.name, job.options = upload.name, JobOptions.from_fields(upload.fields)
        await queue.submit(job)
    return job


async def over_or_left(request: Request, job: Job) -> None:
    """Return once a job is over.

    Raises:
        ClientDisconnect: the client has left before.
    """
    over = asyncio.create_task(job.over.wait())
    left = asyncio.create_task(has_left(request))
    try:
        await asyncio.wait((over, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        over.cancel()
        left.cancel()
    if not job.is_over:
        raise ClientDisconnect


async def has_left(request: Request) -> None:
    """Return once the client of a request whose body has been read is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def list_jobs(request: Request) -> Response:
    """Answer with the jobs of this browser; a client without a cookie has none."""
    jobs = queue_of(request).jobs_of(request.scope["owner"])
    return JSONResponse({"jobs": [job.to_json() for job in jobs]})


async def show_job(request: Request) -> Response:
    """Answer with a job."""
    return JSONResponse(job_of(request).to_json())


async def delete_job(request: Request) -> Response:
    """Cancel a job, or delete one that is over, with its files."""
    queue, job = queue_of(request), job_of(request)
    await (queue.remove(job) if job.is_over else queue.cancel(job))
    return JSONResponse(job.to_json())


async def watch_job(request: Request) -> Response:
    """Answer with the changes of a job, as they come."""
    return event_response(queue_of(request).changes(job_of(request)))


def job_of(request: Request, id: str | None = None) -> Job:
    """Return the job that an address names.

    Raises:
        Refusal: there is none, or it is that of another browser.
    """
    job = queue_of(request).get(request.path_params["id"] if id is None else id)
    if job is None or job.owner not in ("", request.scope["owner"]):
        kept = request.app.state.settings.keep_seconds
        raise Refusal(
            404, f"there is no such job: results are kept for {kept:g} s, and seen by one browser", "NotFound"
        )
    return job


# Pictures


async def download_result(request: Request) -> WhileKept:
    """Answer with a result, as a download."""
    return result_of(queue_of(request), done_job(request))


async def show_thumbnail(request: Request) -> WhileKept:
    """Answer with a small picture of an upload."""
    job = job_with_files(request)
    return picture(request, job, queue_of(request).inspector.thumbnail(job))


async def show_source(request: Request) -> WhileKept:
    """Answer with a picture of an upload for the screen."""
    job = job_with_files(request)
    return picture(request, job, queue_of(request).inspector.preview(job, "source"))


async def show_preview(request: Request) -> WhileKept:
    """Answer with a picture of a result for the screen."""
    job = done_job(request)
    return picture(request, job, queue_of(request).inspector.preview(job, "result"))


async def show_tile(request: Request) -> WhileKept:
    """Answer with a part of an upload or a result at a level of detail."""
    job, at = done_job(request), request.path_params
    if at["side"] not in ("source", "result") or not all(_NUMBER.fullmatch(at[name]) for name in ("level", "x", "y")):
        raise Refusal(
            404, "there is no such tile: expected tiles/source or tiles/result, and LEVEL/X_Y.jpg", "NotFound"
        )
    level, x, y = (int(at[name]) for name in ("level", "x", "y"))
    return picture(request, job, queue_of(request).inspector.tile(job, at["side"], level, x, y))


async def download_archive(request: Request) -> WhileKept:
    """Answer with results as one ZIP file."""
    ids = list(dict.fromkeys(filter(None, request.query_params.get("ids", "").split(","))))
    if not 1 <= len(ids) <= MOST_FILES:
        raise Refusal(400, f"got {len(ids)} ids, expected 1 to {MOST_FILES}, separated by commas", "UsageError")
    jobs = [done_job(request, id) for id in ids]
    return WhileKept(queue_of(request), jobs, archive_of(jobs))


async def archive_of(jobs: list[Job]) -> Response:
    """Return the answer with the results of jobs as one ZIP file."""
    files = [(harmless_name(job.download_name), job.result) for job in jobs]
    headers = {"Content-Disposition": attachment("realesr.zip")}
    return StreamingResponse(zip_chunks(files), media_type="application/zip", headers=headers)


def picture(request: Request, job: Job, making: Awaitable[Path]) -> WhileKept:
    """Return the answer with a picture of a job that the inspector makes, or has made before."""

    async def made() -> Response:
        return JobFile(await making, media_type="image/jpeg", headers=KEPT)

    return WhileKept(queue_of(request), [job], made())


def result_of(queue: JobQueue, job: Job, background: BackgroundTask | None = None) -> WhileKept:
    """Return the answer with a result, as a download."""

    async def made() -> Response:
        assert job.output is not None
        headers = {"Content-Disposition": attachment(harmless_name(job.download_name)), **KEPT, **facts_of(job)}
        return JobFile(job.result, media_type=job.output.media_type, headers=headers, background=background)

    return WhileKept(queue, [job], made())


def facts_of(job: Job) -> dict[str, str]:
    """Return headers that tell what a client has to know of a result: who waits for an image sees no job."""
    notices = {"Realesr-Notices": json.dumps(job.notices)} if job.notices else {}
    return {"Realesr-Model": job.model or "", **notices}


def done_job(request: Request, id: str | None = None) -> Job:
    """Return the job that an address names; raise Refusal where it is not done."""
    job = job_of(request, id)
    if job.state != "done":
        raise refusal_of(job)
    return job


def job_with_files(request: Request) -> Job:
    """Return the job that an address names; raise Refusal where its files are gone."""
    job = job_of(request)
    if job.state == "cancelled":
        raise refusal_of(job)
    return job


def refusal_of(job: Job) -> Refusal:
    """Return why there is no result of a job."""
    if job.error:
        status = refusals.status_of(job.error.kind, job.error.option)
        return Refusal(status, job.error.message, job.error.kind)
    words = {
        "cancelled": "was cancelled: send the image again",
        "queued": "waits for its turn",
        "running": "still runs",
    }
    return Refusal(409, f"the job {words.get(job.state, 'has no result')}", "NotDone")


# The server


async def page(_: Request) -> Response:
    """Answer with the page."""
    return FileResponse(PAGE / "index.html")


async def list_models(request: Request) -> Response:
    """Answer with the networks, and with what may be asked for."""
    settings: ServerSettings = request.app.state.settings
    limits = {"upload_bytes": settings.most_upload_bytes, "pixels": settings.most_pixels, "scale": MAX_SCALE}
    queue = queue_of(request)
    content = {"models": queue.models, "formats": list(MEDIA_TYPES), "limits": limits}
    return JSONResponse(content, background=BackgroundTask(look_again, queue))


async def look_again(queue: JobQueue) -> None:
    """See which networks are on disk by now, for the next who asks; nobody waits for it."""
    with contextlib.suppress(RealesrError):
        queue.models = await queue.inspector.models()


async def tell_health(_: Request) -> Response:
    """Say that the server answers."""
    return JSONResponse({"status": "ok"})


async def tell_readiness(request: Request) -> Response:
    """Say whether the server takes jobs."""
    queue = queue_of(request)
    is_ready = queue.is_ready and queue.storage.folder.is_dir()
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


async def tell_metrics(request: Request) -> Response:
    """Answer with figures for Prometheus."""
    return PlainTextResponse(metrics_text(queue_of(request).counts, request.app.state.answers), media_type=MEDIA_TYPE)


async def tell_openapi(request: Request) -> Response:
    """Answer with the description of the API."""
    return JSONResponse(document(request.app.state.settings))


def queue_of(request: Request) -> JobQueue:
    """Return the queue."""
    queue: Any = request.app.state.queue
    assert isinstance(queue, JobQueue)
    return queue
