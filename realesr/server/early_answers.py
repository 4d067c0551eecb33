"""Sees to it that an answer that is given before the request's body was read reaches its client.

A connection that is closed while bytes of the client are unread is reset, and a reset discards the answer that the
client has not read yet (RFC 9112, 9.6). So the body is read on for a moment, thrown away, and only then closed.
"""

import asyncio
import contextlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_S = 2.0
"""For how long a body that nobody wants is read."""


class EarlyAnswers:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; called by the server."""
        if scope["type"] != "http" or not has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        body = Body(receive, is_awaited="expect" in Headers(scope=scope))

        async def send_then_read(message: Message) -> None:
            if message["type"] == "http.response.start" and not body.is_over:
                MutableHeaders(scope=message)["Connection"] = "close"
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not is_last or body.is_over:
                await send(message)
                return
            await send({**message, "more_body": True})
            if body.was_begun or not body.is_awaited:
                await body.discard_rest()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, body.receive, send_then_read)


class Body:
    """A request's body, and whether it has been read to its end."""

    def __init__(self, receive: Receive, *, is_awaited: bool) -> None:
        self._receive = receive
        self.is_awaited = is_awaited
        """Whether the client sends the body only once it is asked to (RFC 9110, 10.1.1)."""
        self.was_begun = False
        self.is_over = False

    async def receive(self) -> Message:
        """Return the next part; given to the application in the server's place."""
        self.was_begun = True
        message = await self._receive()
        self.is_over = self.is_over or message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def discard_rest(self) -> None:
        """Read on until the end of the body, the client's leaving or the end of patience."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_S):
                while not self.is_over:
                    await self.receive()


def has_body(headers: Headers) -> bool:
    """Return whether a request has a body. Source: RFC 9112, 6."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
