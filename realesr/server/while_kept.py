"""Sends files of jobs that stay until they are sent, though somebody deletes the jobs meanwhile."""

import contextlib
from collections.abc import Awaitable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .job_queue import JobQueue
from .jobs import Job


class WhileKept:
    """An answer that is made of the files of jobs, and sent, while these files are kept."""

    def __init__(self, queue: JobQueue, jobs: Sequence[Job], answer: Awaitable[Response]) -> None:
        self._queue, self._jobs, self._answer = queue, jobs, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make the answer and send it; called by starlette in place of a response, with its errors told alike."""
        async with contextlib.AsyncExitStack() as kept:
            for job in self._jobs:
                await kept.enter_async_context(self._queue.reading(job))
            await (await self._answer)(scope, receive, send)
