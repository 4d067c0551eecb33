"""Follows the job that a worker is at: its progress, the time left, and the download of its network."""

import time
from collections.abc import Callable

from .child import Answer
from .jobs import Job

MEASURED_SECONDS = 1.0
"""After this much progress the time left follows from it, and before from the estimate."""


class RunProgress:
    """What a worker's answers tell about one job."""

    def __init__(self, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._job, self._clock = job, clock
        self._first: tuple[float, int] | None = None
        """Time and pixels done at the first progress; what was before is the engine's start."""

    def note(self, answer: Answer) -> None:
        """Note one answer: "download", "model" or "progress"."""
        job = self._job
        job.model = answer.get("model", job.model)
        if "download" in answer:
            done, total = answer["download"]
            job.fetching = {"model": job.model, "done": done, "total": total}
            return
        job.fetching = None
        if "progress" in answer:
            job.pixels_done, job.pixels_total = answer["progress"]
            job.seconds_left = self._seconds_left()

    def _seconds_left(self) -> float | None:
        """Return the time left, by the progress so far, or by the estimate as long as there is too little of that."""
        job, now = self._job, self._clock()
        if self._first is None:
            self._first = now, job.pixels_done
        first_time, first_px = self._first
        seconds, pixels = now - first_time, job.pixels_done - first_px
        if seconds >= MEASURED_SECONDS and pixels > 0:
            return (job.pixels_total - job.pixels_done) * seconds / pixels
        return None if job.estimate_seconds is None else job.estimate_seconds * (1 - job.share)
