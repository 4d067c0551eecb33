"""Counts answers, and logs each: what was asked, by which status it was answered, how long that took.

A token in an address is no part of what is logged.
"""

import logging
import time
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_SHOWN = 200
"""Characters of an address that are logged."""

_log = logging.getLogger(__name__)


class RequestLog:
    """ASGI middleware around all others but `EarlyAnswers`."""

    def __init__(self, app: ASGIApp, answers: Counter[int]) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; called by the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s = time.monotonic()
        statuses: list[int] = []

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                self._answers[message["status"]] += 1
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            if not statuses:  # starlette answers, further out
                statuses.append(500)
                self._answers[500] += 1
            raise
        finally:
            status, ms = statuses[0] if statuses else "no answer", (time.monotonic() - begun_s) * 1000
            _log.info("%s %s: %s in %.0f ms", scope["method"], ascii(scope["path"][:MOST_SHOWN])[1:-1], status, ms)
