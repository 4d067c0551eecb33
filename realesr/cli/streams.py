"""Keeps stdin, stdout and stderr usable: one that is closed, full or of a narrow encoding ends no command by itself."""

import codecs
import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from realesr.errors import OutputError

from .names import shown

ESCAPES = "realesr.escapes"
"""Name of the error handler that `prepare` gives stdout."""


def prepare() -> None:
    """Open what is closed as the null device, and let stdout print any text.

    A closed descriptor would be given to the next file that is opened, and messages of libraries would end up in it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    codecs.register_error(ESCAPES, _escapes)
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors=ESCAPES)  # type: ignore[union-attr]


def _escapes(error: UnicodeError) -> tuple[bytes, int]:
    r"""Encode what an encoding lacks: bytes that are no text as they are on POSIX, characters as \u20ac."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    keeps_bytes = os.name == "posix"
    parts = (
        bytes((ord(char) - 0xDC00,))
        if keeps_bytes and "\udc80" <= char <= "\udcff"
        else char.encode("ascii", "backslashreplace")
        for char in text
    )
    return b"".join(parts), error.end


def write_result(result: str | Path) -> None:
    """Write a line of results to stdout, at once, so that a reader at the other end of a pipe can start.

    A path is written byte for byte, whatever the encoding of stdout; on a terminal as messages show it.

    Raises:
        BrokenPipeError: the reader has gone.
        OutputError: stdout is closed or on a full disk. It takes no more results, and the next ones are dropped.
    """
    out: Any = sys.stdout
    if out is None:
        raise OutputError("results cannot be written to stdout, which is closed")
    try:
        if isinstance(result, Path) and os.name == "posix" and not out.isatty():
            out.flush()
            out.buffer.write(os.fsencode(result) + b"\n")
        else:
            out.write(f"{shown(result) if isinstance(result, Path) and out.isatty() else result}\n")
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(out)
        raise OutputError(f"results cannot be written to stdout ({error.strerror or error})") from error


def write_content(path: Path) -> None:
    """Write the bytes of a file to stdout.

    Raises:
        BrokenPipeError: the reader has gone.
        OutputError: stdout is on a full disk.
    """
    out: Any = sys.stdout
    try:
        out.flush()
        with path.open("rb") as file:
            shutil.copyfileobj(file, out.buffer)
        out.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(out)
        raise OutputError(f"the image cannot be written to stdout ({error.strerror or error})") from error


def discard(stream: Any) -> None:
    """Lead an output stream to the null device, so that what it still holds does not fail again at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class Stderr:
    """The stream of messages, as it is when this object is made. Its failures are ignored: there is nobody to tell."""

    def __init__(self) -> None:
        self._stream: Any = getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    def write(self, text: str) -> int:
        """Write text, if that is possible."""
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        """Write what is held back, if that is possible."""
        self._attempt("flush")

    def isatty(self) -> bool:
        """Return whether the messages go to a terminal."""
        return self._stream is not None and bool(self._stream.isatty())

    def fileno(self) -> int:
        """Return the descriptor; raises OSError where there is none."""
        if self._stream is None:
            raise OSError("stderr is closed")
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str:
        """Return the encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def _attempt(self, method: str, *arguments: str) -> None:
        """Call a method of the stream; where it fails, the stream takes no more."""
        try:
            if self._stream is not None:
                getattr(self._stream, method)(*arguments)
        except (OSError, ValueError):  # ValueError: closed by Python
            discard(self._stream)
