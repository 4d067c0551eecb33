"""Downloads one file whose SHA-256 is known, and resumes where the last attempt ended.

pooch is not used: it writes to a temporary file of random name and deletes it when the connection breaks, so that
nothing is left to go on from.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import requests

from realesr.errors import ModelError
from realesr.machine.whole_file import file_sha256
from realesr.progress import AmountCallback

if sys.platform != "win32":
    import fcntl

FEWEST_DIGITS = 8
"""Fewest digits of a SHA-256 that are accepted: as many as PyTorch's model files have in their names."""

_VAIN_ATTEMPTS = 4
"""Attempts in a row without new bytes, after which the download is given up."""
_SECONDS_BEFORE_NEXT_ATTEMPT = 1.0
_TIMEOUTS_SECONDS = (15, 60)
"""Timeouts of connecting and between two packets."""
_CHUNK_BYTES = 1 << 15


class _BrokenError(Exception):
    """A connection that ended early; another attempt may resume."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    size: int | None = None,
    on_progress: AmountCallback | None = None,
    advice: str | None = None,
) -> None:
    """Download `url` to `target`, which holds the complete, verified file afterwards, or is unchanged.

    Several processes may do so at once: one of them fetches the file, the others wait for it.

    Args:
        url: http or https.
        target: its folder is made. The bytes gather in `<target>.part`, which stays after a break.
        sha256: of the whole file, in hexadecimal: all 64 digits, or the first 8 or more where no more are published.
        size: bytes of the whole file, where known.
        on_progress: called with the bytes that are there and the bytes of the whole file (0: unknown).
        advice: what to do where the file cannot be had; by default, how the weights of a network are found without.

    Raises:
        ModelError: no connection, an answer without the file, other bytes than promised, or no place to write.
    """
    if not FEWEST_DIGITS <= len(sha256) <= 64:
        raise ValueError(f"got {len(sha256)} digits of a SHA-256, expected {FEWEST_DIGITS} to 64")
    # Not a temporary file of realesr.machine.whole_file: its name must be known to the attempt that goes on with it.
    part = target.with_name(f"{target.name}.part")
    advice = advice or (
        f"fetch the file by other means and put it at {target}, or into a folder that REALESR_MODELS names"
    )
    found = _identity(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.with_name(f"{target.name}.lock")):
            came_meanwhile = _identity(target) not in (None, found)
            if not (came_meanwhile and file_sha256(target).startswith(sha256)):
                _fetch_verified(url, part, sha256, size, on_progress, advice)
                part.replace(target)
    except OSError as error:
        raise ModelError(
            f"{target} cannot be written: {error.strerror or error} (REALESR_CACHE names another folder)"
        ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Return inode and modification time, which change when a file is replaced; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is deleted afterwards; wait while another process holds it.

    Windows, and disks that know no locks, have none: there two downloads of one file at once may both fail.
    """
    if sys.platform == "win32":
        yield
        return
    while True:
        with lock.open("ab") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            # The one who had the lock has deleted the file: others may have made and locked a new one by now.
            if not _is_at(file, lock):
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Return whether the open file is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fetch_verified(
    url: str, part: Path, sha256: str, size: int | None, on_progress: AmountCallback | None, advice: str
) -> None:
    """Download the complete file to `part` and verify its SHA-256."""
    is_resumed = part.exists()
    _fetch(url, part, size, on_progress, advice)
    if is_resumed and not file_sha256(part).startswith(sha256):
        # What lay there from an earlier run may have been wrong from the start.
        part.unlink()
        _fetch(url, part, size, on_progress, advice)
    got = file_sha256(part)
    if not got.startswith(sha256):
        part.unlink()
        raise ModelError(
            f"{url} gave a file with SHA-256 {got[:16]}..., expected {sha256[:16]}...; it was deleted: "
            f"try again, or {advice}"
        )


def _fetch(url: str, part: Path, size: int | None, on_progress: AmountCallback | None, advice: str) -> None:
    """Download the complete file to `part`, in several attempts if need be."""
    reason = ""
    most = vain = 0
    while vain < _VAIN_ATTEMPTS:
        try:
            return _append(url, part, size, on_progress, advice)
        except _BrokenError as error:
            reason = str(error)
        there = part.stat().st_size if part.exists() else 0
        vain = 0 if there > most else vain + 1
        most = max(most, there)
        time.sleep(_SECONDS_BEFORE_NEXT_ATTEMPT)
    raise ModelError(f"{url} cannot be fetched ({reason}): check the connection and try again, or {advice}")


def _append(url: str, part: Path, size: int | None, on_progress: AmountCallback | None, advice: str) -> None:
    """Request the missing bytes once, and append the answer to `part`."""
    there = part.stat().st_size if part.exists() else 0
    # Compression would make the bytes that arrive other than those that Range counts.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUTS_SECONDS) as answer:
            if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return _finish_or_begin_anew(answer, part, there)
            _check_status(answer, url, advice)
            there = _place(answer, there)
            length = answer.headers.get("Content-Length")
            total = there + int(length) if length else size or 0
            with part.open("r+b" if there else "wb") as file:
                file.seek(there)
                for chunk in answer.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    there += len(chunk)
                    if on_progress:
                        on_progress(there, total)
            if there < total:
                raise _BrokenError(f"the connection ended after {there} of {total} bytes")
    except requests.RequestException as error:
        raise _BrokenError(_why(error)) from error


def _check_status(answer: requests.Response, url: str, advice: str) -> None:
    """Raise _BrokenError where the server may recover, and ModelError where it does not have the file."""
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        raise _BrokenError(f"the server says {answer.status_code} {answer.reason}")
    if answer.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise ModelError(f"{url} is not to be had: the server says {answer.status_code} {answer.reason}; {advice}")


def _place(answer: requests.Response, there: int) -> int:
    """Return the offset of the answer's first byte: `there` if the server honoured the Range header, else 0."""
    begins = answer.headers.get("Content-Range", "").startswith(f"bytes {there}-")
    return there if answer.status_code == HTTPStatus.PARTIAL_CONTENT and begins else 0


def _finish_or_begin_anew(answer: requests.Response, part: Path, there: int) -> None:
    """Delete `part` and raise _BrokenError, unless it is already as long as the server's file."""
    if answer.headers.get("Content-Range") != f"bytes */{there}":
        part.unlink()
        raise _BrokenError(f"the unfinished file had {there} bytes, more than the server's")


def _why(error: requests.RequestException) -> str:
    """Describe a network error in a few words; the library's own message shows several lines of its internals."""
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__
