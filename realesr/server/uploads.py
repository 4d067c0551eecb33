"""Reads an upload from a request to a file, within limits of size and time; nothing is kept in memory whole."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from .file_names import harmless_name
from .forms import FILE_FIELD, Form, too_large
from .refusals import Refusal

MOST_FORM_BYTES = 64 * 1024
"""What an upload may have beside its file: fields, boundaries, headers of parts."""

PATIENCE_S = 30.0
LEAST_BYTES_PER_S = 5_000.0
"""A client that sends less than this, once the first seconds are over, is refused: it would keep its place for ever."""

WRITE_BYTES = 1 << 20
"""Bytes that are gathered before they are written."""

FieldsCheck = Callable[[Mapping[str, str]], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """An upload whose file has been written."""

    name: str
    """What the client called the file, made harmless."""
    fields: dict[str, str]
    """The other fields of the form, as text."""
    file_bytes: int


def check_announced(request: Request, most_file_bytes: int) -> bytes:
    """Return the boundary of an upload that may be read, from the headers alone.

    Raises:
        Refusal: it is no multipart form, or announces more bytes than are taken.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data":
        shown = media_type.decode("latin-1")[:60] or "no media type"
        raise Refusal(415, f"got {shown}, expected multipart/form-data with a file as {FILE_FIELD}", "UsageError")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise Refusal(400, "got multipart/form-data without a boundary of 1 to 70 characters", "UsageError")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most_file_bytes + MOST_FORM_BYTES:
        raise too_large(most_file_bytes)
    return boundary


async def read_upload(
    request: Request, target: Path, most_file_bytes: int, check_fields: FieldsCheck | None = None
) -> Upload:
    """Write the file of an upload to `target`, and return what else it says.

    Args:
        request: the request, whose body has not been read.
        target: path of a new file. Where this fails, what has been written is left to the caller.
        most_file_bytes: cap of the file.
        check_fields: called with the fields that have come so far, each time that there are more: what it raises ends
            the upload, before its file has been read where the fields come first.

    Raises:
        Refusal: the form is malformed, incomplete, too large or too slow, or the disk is full.
        starlette.requests.ClientDisconnect: the client has left.
    """
    form = Form(check_announced(request, most_file_bytes), most_file_bytes)
    try:
        with target.open("xb") as file:
            async for content in gathered(request, form, check_fields):
                await asyncio.to_thread(file.write, content)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"the upload cannot be written ({reason}): free some space on the server, or try again later"
        raise Refusal(507, message, "OutputError") from error
    form.check_complete()
    return Upload(name=harmless_name(form.file_name or ""), fields=form.fields, file_bytes=form.file_bytes)


async def gathered(request: Request, form: Form, check_fields: FieldsCheck | None) -> AsyncIterator[bytes]:
    """Yield the content of the form's file in pieces of about a megabyte.

    Raises:
        Refusal: see `read_upload`.
    """
    content, form_bytes, fields_checked = bytearray(), 0, 0
    async for chunk in in_time(request):
        part = form.feed(chunk)
        if check_fields is not None and len(form.fields) > fields_checked:
            fields_checked = len(form.fields)
            await check_fields(form.fields)
        content += part
        form_bytes += len(chunk) - len(part)
        if form_bytes > MOST_FORM_BYTES:
            raise Refusal(413, f"got more than {MOST_FORM_BYTES} bytes beside the file", "UsageError")
        if len(content) >= WRITE_BYTES:
            yield bytes(content)
            content.clear()
    yield bytes(content)


async def in_time(request: Request) -> AsyncIterator[bytes]:
    """Yield the body's chunks as they come.

    Raises:
        Refusal: they come too slowly.
    """
    begun_s, received = time.monotonic(), 0
    chunks = request.stream()
    while True:
        left_s = PATIENCE_S + received / LEAST_BYTES_PER_S - (time.monotonic() - begun_s)
        try:
            async with asyncio.timeout(left_s):
                chunk = await anext(chunks, None)
        except TimeoutError:
            message = (
                f"got {received} bytes in {time.monotonic() - begun_s:.0f} s: the upload is too slow, send it again"
            )
            raise Refusal(408, message, "UsageError") from None
        if chunk is None:
            return
        received += len(chunk)
        yield chunk
