"""Answers that say no: {"error": {"message", "kind"}} as JSON, with the HTTP status of each kind of error."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .job_queue import QueueFull

STATUSES = {
    "UsageError": 400,
    "InputError": 422,
    "LargeEnough": 422,
    "QueueFull": 503,
    "ModelError": 503,  # most often it cannot be fetched now
    "OutputError": 507,
}
"""Class of an error -> HTTP status; every other one is 500."""


class Refusal(Exception):  # noqa: N818 - not every refusal is an error of the client
    """A request that is answered by an error.

    Args:
        status: of HTTP, 400 to 599.
        message: one line: what was got, what was expected, what to do.
        kind: word that a program can compare, such as "QueueFull".
        headers: more headers of the answer, such as Retry-After.
    """

    def __init__(self, status: int, message: str, kind: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """Return the answer."""
        return error_response(self.status, str(self), self.kind, self.headers)


def error_response(status: int, message: str, kind: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as the API answers it; what a client has sent is told without its control characters."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in message)
    return JSONResponse({"error": {"message": shown, "kind": kind}}, status, dict(headers or {}))


def status_of(kind: str, option: str | None = None) -> int:
    """Return the HTTP status that stands for an error, by the name of its class and the option that would help."""
    if kind == "OutputError" and option == "format":  # the format cannot hold the image, and the disk has room
        return 422
    return STATUSES.get(kind, 500)


async def on_refusal(_: Request, error: Exception) -> Response:
    """Answer a request that a handler refused; called by starlette."""
    assert isinstance(error, Refusal)
    return error.response()


async def on_own_error(_: Request, error: Exception) -> Response:
    """Answer by an error of realesr's own, in its words; called by starlette."""
    kind = type(error).__name__
    headers = {"Retry-After": str(error.retry_seconds)} if isinstance(error, QueueFull) else {}
    return error_response(status_of(kind, getattr(error, "option", None)), str(error), kind, headers)


async def on_leaving(_: Request, __: Exception) -> Response:
    """Answer a client that has left before its upload was whole: nobody reads this; called by starlette."""
    return error_response(400, "the client has left", "ClientDisconnect")


async def on_missing(request: Request, _: Exception) -> Response:
    """Answer a request for an address that there is not; called by starlette."""
    return error_response(404, f"there is no {request.url.path} here: /openapi.json lists what there is", "NotFound")


async def on_wrong_method(request: Request, error: Exception) -> Response:
    """Answer a method that an address does not have; called by starlette."""
    message = f"{request.method} is not possible for {request.url.path}: /openapi.json lists what is"
    return error_response(405, message, "WrongMethod", getattr(error, "headers", None))


async def on_fault(_: Request, error: Exception) -> Response:
    """Answer by a fault of the server's; its traceback goes to the log, not to the client; called by starlette."""
    return error_response(500, f"unexpected {type(error).__name__} in the server: its log says more", "ServerFault")
