"""Sends one file of a job, whole or in part, or tells a client that it has the file already."""

import asyncio
import os
import re

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.staticfiles import NotModifiedResponse
from starlette.types import Receive, Scope, Send

from .guard import SAFE_METHODS
from .refusals import Refusal

_RANGES = re.compile(
    r"bytes=[ \t]*{one}([ \t]*,[ \t]*{one})*[ \t]*".replace("{one}", r"(\d{1,15}-\d{0,15}|-\d{1,15})"), re.ASCII | re.I
)
"""A header Range that asks for bytes. Source: RFC 9110, 14.1.1 and 14.2."""


class JobFile(FileResponse):
    """The answer with a file of a job.

    A Range of another form is ignored, and 304 answers an If-None-Match that has the file's ETag (RFC 9110, 14.2 and
    13.1.2). Raises Refusal where the file is gone.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; called by starlette."""
        try:
            self.stat_result = await asyncio.to_thread(os.stat, self.path)
        except OSError as error:
            raise Refusal(404, "the file is gone from the server: send the image again", "NotFound") from error
        self.set_stat_headers(self.stat_result)
        headers = Headers(scope=scope)
        if scope["method"] in SAFE_METHODS and self.headers["etag"] in known_etags(headers):
            await NotModifiedResponse(self.headers)(scope, receive, send)
            return
        if not _RANGES.fullmatch(headers.get("range", "")):
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        await super().__call__(scope, receive, send)


def known_etags(headers: Headers) -> list[str]:
    """Return the ETags of what the client has."""
    return [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
