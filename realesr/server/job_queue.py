"""The queue: which job runs next, where, and what becomes of it.

First come, first served; but a job that the estimate puts under ten seconds goes before longer ones that have not
started and that came less than a minute before it. So a long job waits for no job that came more than a minute after
it, however many short ones come. A job without an estimate counts as long. The estimate is the network's measured
speed, which a worker tells when it has opened the network, by the pixels that the network has to read.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

from realesr.errors import OutputError, RealesrError

from .child import Answer, ChildDied
from .jobs import Job, JobError, Output, State, new_id
from .processes import Inspector, Worker, error_from
from .run_progress import RunProgress
from .settings import ServerSettings
from .storage import JOB_PREFIX, LEAST_FREE_BYTES, Storage, open_storage

SHORT_SECONDS = 10.0
"""Jobs that take less by the estimate go before longer ones."""
HEAD_START_SECONDS = 60.0
"""A short job goes before longer ones that came at most this much earlier; earlier ones keep their turn."""
RETRY_SECONDS = 10
"""When to try again where the queue is full and no estimate tells more."""
LEAST_SECONDS_BETWEEN_CHANGES = 0.2
_EXPIRY_SECONDS = 30.0
"""How often files that are kept no longer are looked for."""

_log = logging.getLogger(__name__)


class QueueFull(RealesrError):  # noqa: N818
    """No job is taken now: as many wait as may, the disk is full, or the server is about to end."""

    def __init__(self, message: str, retry_seconds: int = RETRY_SECONDS) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class JobQueue:
    """All jobs of a server. Use it from one event loop."""

    def __init__(
        self, settings: ServerSettings, workers: Sequence[Worker], inspector: Inspector, storage: Storage
    ) -> None:
        """Make an empty queue; `start` starts its processes."""
        self.settings, self.workers, self.inspector, self.storage = settings, tuple(workers), inspector, storage
        self.is_ready = False
        """Whether jobs are taken: not while the server starts or ends."""
        self.models: list[dict[str, Any]] = []
        """The networks that may be asked for, as `Inspector.models` returned them at the start."""
        self.totals: defaultdict[str, float] = defaultdict(float)
        """How many jobs were done, failed, cancelled or refused; "pixels" read by networks, and "seconds" of work."""
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._running: dict[Job, Worker] = {}
        self._uploading: set[Job] = set()
        self._readers: Counter[Job] = Counter()
        """How many answers are being sent, or pictures made, from the files of a job."""
        self._speeds: dict[str | None, float] = {}
        """Seconds per pixel of the network's input, by the name that was asked for."""
        self._measured: set[str | None] = set()
        """Names of the networks that a worker has measured; of the others, those on a GPU, finished jobs tell."""
        self._worked: dict[str | None, tuple[float, int]] = {}
        """Seconds and pixels of the finished jobs of each network."""
        self._has_job = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the processes, and take jobs from now on.

        Raises:
            ChildDied: a process cannot be started.
        """
        self.models = await self.inspector.models()
        for worker in self.workers:
            await worker.child.start()
            self._tasks.append(asyncio.create_task(self._work(worker)))
        self._tasks.append(asyncio.create_task(self._expire()))
        self.is_ready = True

    # Jobs come

    @property
    def is_full(self) -> bool:
        """Return whether as many jobs wait as may."""
        return len(self._waiting) + len(self._uploading) >= self.settings.queue_length

    @contextmanager
    def reserve(self, owner: str = "") -> Iterator[Job]:
        """Yield a new job of this owner with an empty folder, whose place in the queue is kept while the block runs.

        The upload goes into `job.source`; set `job.name` and `job.options`, and submit it in the block. The folder of
        a job that was not submitted is deleted at its end.

        Raises:
            QueueFull: no job is taken now.
            OutputError: the folder cannot be made, or the server's own is gone.
        """
        self._check_takes_jobs()
        id = new_id()
        job = Job(id=id, owner=owner, folder=self.storage.new_folder(f"{JOB_PREFIX}{id}"))
        self._uploading.add(job)
        try:
            yield job
        finally:
            self._uploading.remove(job)
            if job.id not in self._jobs:
                self.storage.remove(job.folder)

    def _check_takes_jobs(self) -> None:
        """Raise QueueFull where no job is taken now."""
        reason = None
        if not self.is_ready:
            reason = "the server is starting or ending, and takes no images now: try again later"
        elif self.is_full:
            reason = f"{self.settings.queue_length} images wait already, as many as may: try again later"
        elif self.storage.free_bytes < LEAST_FREE_BYTES:
            reason = "the server's disk is full: try again once older results are gone"
        if reason:
            self.totals["refused"] += 1
            raise QueueFull(reason, self._retry_seconds())

    def _retry_seconds(self) -> int:
        """Return when a place will be free, by the estimates of the jobs that run: 1 s to a minute."""
        known = (job.estimate_seconds if job.seconds_left is None else job.seconds_left for job in self._running)
        left = [seconds for seconds in known if seconds is not None]
        return max(1, min(60, round(min(left)))) if left else RETRY_SECONDS

    async def check_model(self, name: str | None) -> None:
        """Raise UsageError where there is no network of this name; one may have been pulled since the start."""
        if name is not None and all(name != model["name"] for model in self.models):
            await self.inspector.check_model(name)

    async def submit(self, job: Job) -> None:
        """Look at a job's upload, and let the job wait for its turn.

        Raises:
            RealesrError: the upload is no image, or cannot come to what is asked; nothing is left of the job.
        """
        facts = await self.inspector.probe(job)
        if not self.is_ready:
            self._check_takes_jobs()
        job.input_px = facts["width"], facts["height"]
        job.work_px = job.pixels_total = facts["work_px"]
        job.queued_s = time.monotonic()
        self._jobs[job.id] = job
        self._waiting.append(job)
        self._reorder()

    # Jobs are looked at

    def get(self, id: str, owner: str | None = None) -> Job | None:
        """Return a job by its id; None where there is none, or where it is another owner's than the one named."""
        job = self._jobs.get(id)
        return job if job is not None and owner in (None, job.owner) else None

    def jobs_of(self, owner: str) -> list[Job]:
        """Return an owner's jobs, the oldest first; clients without an id own none together."""
        return [job for job in self._jobs.values() if owner and job.owner == owner]

    async def changes(self, job: Job) -> AsyncGenerator[dict[str, Any]]:
        """Yield a job as JSON at once and at each change, at most five times a second; the last is how it ended."""
        told = None
        while True:
            changed, is_over, now = job.changed, job.is_over, job.to_json()
            if now != told:
                told = now
                yield now
            if is_over:
                return
            await changed.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(job.over.wait(), LEAST_SECONDS_BETWEEN_CHANGES)

    @asynccontextmanager
    async def reading(self, job: Job) -> AsyncGenerator[None]:
        """Keep the files of a job while the block runs, though the job be cancelled or forgotten meanwhile."""
        self._readers[job] += 1
        try:
            yield
        finally:
            self._readers[job] -= 1
            if not self._readers[job]:
                del self._readers[job]
            if self._is_waste(job):
                await asyncio.to_thread(self.storage.remove, job.folder)

    @property
    def counts(self) -> dict[str, float]:
        """Return figures for metrics: jobs by their state now, and the totals since the start."""
        restarts = sum(max(0, child.starts - 1) for child in (worker.child for worker in self.workers))
        names = ("done", "failed", "cancelled", "refused", "pixels", "seconds")
        return {
            "queued": len(self._waiting),
            "uploading": len(self._uploading),
            "running": len(self._running),
            "kept": len(self._jobs),
            "worker_restarts": restarts,
            **{f"{name}_total": self.totals[name] for name in names},
        }

    # Jobs end

    async def cancel(self, job: Job) -> None:
        """Cancel a job that waits or runs; without effect on one that is over."""
        self._cancel(job, None)

    def _cancel(self, job: Job, error: JobError | None) -> None:
        if job.is_over:
            return
        worker = self._running.get(job)
        self._end(job, "cancelled", error)
        if worker:
            self._in_background(worker.cancel(job))
        else:
            self._waiting.remove(job)
            self._reorder()
            self._tidy(job)

    async def remove(self, job: Job) -> None:
        """Forget a job with its files; one that waits or runs is cancelled first."""
        await self.cancel(job)
        if self._jobs.pop(job.id, None) and self._is_waste(job):
            await asyncio.to_thread(self.storage.remove, job.folder)

    async def close(self, grace_seconds: float | None = None) -> None:
        """Take no more jobs, cancel those that wait, give running ones some time, and end the processes.

        Args:
            grace_seconds: how long running jobs may go on; None is what the settings say.
        """
        self.is_ready = False
        ending = JobError(message="the server was ended before this image was done", kind="QueueFull")
        for job in list(self._waiting):
            self._cancel(job, ending)
        grace = self.settings.grace_seconds if grace_seconds is None else grace_seconds
        running = [asyncio.create_task(job.over.wait()) for job in self._running if not job.is_over]
        if running:
            await asyncio.wait(running, timeout=grace)
        for job in list(self._running):
            self._cancel(job, ending)
        for task in [*running, *self._tasks]:
            task.cancel()
        await asyncio.gather(*running, *self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.child.end() for worker in self.workers), self.inspector.end())

    # Jobs run

    async def _work(self, worker: Worker) -> None:
        """Run one job after the other on a worker."""
        while True:
            while not self._waiting:
                self._has_job.clear()
                await self._has_job.wait()
            job = self._in_order()[0]
            self._waiting.remove(job)
            self._running[job] = worker
            job.state, job.place = "running", None
            job.mark_changed()
            self._reorder()
            try:
                await self._run(worker, job)
            finally:
                del self._running[job]
                job.given_up.set()
                self._tidy(job)

    def _tidy(self, job: Job) -> None:
        """Delete a job's files where nobody needs them any more."""
        if self._is_waste(job):
            self.storage.remove(job.folder)

    def _is_waste(self, job: Job) -> bool:
        """Return whether a job's files are needed no more: it was cancelled or is forgotten, and nobody uses them.

        Whoever uses them looks again afterwards: the worker, once it has given the job up, and `reading`. A failed
        upload can still be looked at.
        """
        is_wanted = job.state != "cancelled" and job.id in self._jobs
        return not is_wanted and job not in self._running and job not in self._readers

    async def _run(self, worker: Worker, job: Job) -> None:
        """Enlarge one image on a worker, and note how it ended."""
        progress = RunProgress(job)
        try:
            async with aclosing(worker.upscale(job)) as answers:
                async for answer in answers:
                    self._note(job, progress, answer)
        except ChildDied as error:
            self._fail(job, error)
        except Exception as error:  # the next job shall run, whatever this one has met
            self._fail(job, RealesrError(f"the server failed ({type(error).__name__}: {error})"))

    def _note(self, job: Job, progress: RunProgress, answer: Answer) -> None:
        """Note one answer of a worker about the job that it is at."""
        if "speed" in answer:
            self._measured.add(job.options.model)
            self._learn(job, answer["speed"])
        if job.is_over:
            return
        if "failed" in answer:
            self._fail(job, error_from(answer))
        elif "done" in answer:
            self._finish(job, answer["done"])
        else:
            progress.note(answer)
            job.mark_changed()

    def _learn(self, job: Job, seconds_per_px: float) -> None:
        """Note how fast a job's network is, and order the waiting jobs by it."""
        self._speeds[job.options.model] = seconds_per_px
        job.estimate_seconds = self._estimate(job)
        self._reorder()

    def _finish(self, job: Job, facts: dict[str, Any]) -> None:
        """Note the result of a job that is done."""
        width, height = facts["output_px"]
        job.output = Output(width_px=width, height_px=height, format=facts["format"], bytes=facts["bytes"])
        job.model, job.seconds = facts["model"], round(facts["seconds"], 3)
        job.notices = tuple(job.in_public_words(notice) for notice in facts["notices"])
        job.pixels_done, job.seconds_left, job.fetching = job.pixels_total, 0.0, None
        self.totals["pixels"] += job.work_px
        self.totals["seconds"] += job.seconds
        if job.work_px:
            seconds, pixels = self._worked.get(job.options.model, (0.0, 0))
            seconds, pixels = self._worked[job.options.model] = seconds + job.seconds, pixels + job.work_px
            if job.options.model not in self._measured:
                self._learn(job, seconds / pixels)
        self._end(job, "done", None)

    def _fail(self, job: Job, error: RealesrError) -> None:
        """Note why a job failed."""
        if job.is_over:
            return
        _log.warning("job %s failed: %s", job.id, error)
        message = job.in_public_words(str(error))
        with contextlib.suppress(OutputError):
            if isinstance(error, OutputError) and self.storage.free_bytes < LEAST_FREE_BYTES:
                message = f"the server's disk is full: {message}"
        self._end(job, "failed", JobError(message=message, kind=type(error).__name__, option=error.option))

    def _end(self, job: Job, state: State, error: JobError | None) -> None:
        """Note how a job ended, unless it had ended before."""
        if job.is_over:
            return
        job.state, job.error, job.ended_s, job.place = state, error, time.monotonic(), None
        job.seconds_left = 0.0 if state == "done" else None
        job.fetching = None
        self.totals[state] += 1
        job.over.set()
        job.mark_changed()

    # The order

    def _estimate(self, job: Job) -> float | None:
        """Return how long the network will take; None where its speed is not known."""
        speed = self._speeds.get(job.options.model)
        return 0.0 if not job.work_px else None if speed is None else speed * job.work_px

    def _in_order(self) -> list[Job]:
        """Return the waiting jobs, the next one first, as if short ones had come earlier by their head start."""
        return sorted(self._waiting, key=lambda job: job.queued_s - (HEAD_START_SECONDS if _is_short(job) else 0.0))

    def _reorder(self) -> None:
        """Set the estimate and the place of each waiting job, and wake a worker."""
        for job in self._waiting:
            job.estimate_seconds = self._estimate(job)
        for place, job in enumerate(self._in_order(), 1):
            if job.place != place:
                job.place = place
                job.mark_changed()
        if self._waiting:
            self._has_job.set()

    # Files go

    async def _expire(self) -> None:
        """Remove jobs that have been over for as long as they are kept, again and again."""
        while True:
            await asyncio.sleep(min(_EXPIRY_SECONDS, max(0.05, self.settings.keep_seconds / 4)))
            oldest_s = time.monotonic() - self.settings.keep_seconds
            for job in [job for job in self._jobs.values() if job.ended_s is not None and job.ended_s < oldest_s]:
                await self.remove(job)
            self._sweep()

    def _sweep(self) -> None:
        """Delete folders of jobs that are forgotten: a file may have come into one while it was being deleted."""
        in_use = {job.folder for job in (*self._jobs.values(), *self._running, *self._uploading, *self._readers)}
        for folder in self.storage.job_folders():
            if folder not in in_use:
                self.storage.remove(folder)

    def _in_background(self, work: Any) -> None:
        """Run a coroutine beside the others; it is held until it has ended."""
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)


def _is_short(job: Job) -> bool:
    return job.estimate_seconds is not None and job.estimate_seconds < SHORT_SECONDS


@asynccontextmanager
async def open_queue(settings: ServerSettings) -> AsyncGenerator[JobQueue]:
    """Yield a queue with its folder and its processes, started; they are gone afterwards.

    Raises:
        OutputError: temporary files cannot be written.
        ChildDied: a process cannot be started.
    """
    with open_storage() as storage:
        workers = [Worker(settings, device, storage, number) for number, device in enumerate(settings.devices)]
        queue = JobQueue(settings, workers, Inspector(settings, storage), storage)
        try:
            await queue.start()
            yield queue
        finally:
            await queue.close()
