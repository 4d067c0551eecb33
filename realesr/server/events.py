"""Server-sent events of a job: each change, and a comment now and then, so that nobody on the way hangs up.

Source: WHATWG HTML, 9.2, "Server-sent events".
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import StreamingResponse

SECONDS_BETWEEN_COMMENTS = 15.0
RETRY_MS = 2000
"""After this time a browser asks again where the connection was lost."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nothing keeps events back: no cache, and no nginx in front."""


def event_response(changes: AsyncIterator[Mapping[str, Any]]) -> StreamingResponse:
    """Return the answer that sends each change of a job as `event: job`, and ends after the last."""
    return StreamingResponse(event_lines(changes), media_type="text/event-stream", headers=HEADERS)


async def event_lines(changes: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[str]:
    """Yield the text of the events."""
    yield f"retry: {RETRY_MS}\n\n"
    coming = asyncio.ensure_future(anext(changes, None))
    try:
        while True:
            done, _ = await asyncio.wait((coming,), timeout=SECONDS_BETWEEN_COMMENTS)
            if not done:
                yield ": still here\n\n"
                continue
            record = coming.result()
            if record is None:
                return
            yield f"event: job\ndata: {json.dumps(record, ensure_ascii=False)}\n\n"
            coming = asyncio.ensure_future(anext(changes, None))
    finally:
        coming.cancel()
