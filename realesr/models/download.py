"""Downloads one file whose SHA-256 is known, and resumes where the last attempt ended.

pooch is not used: it writes to a temporary file of random name and deletes it when the connection breaks, so that
nothing is left to go on from.
"""

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from realesr.errors import ModelError
from realesr.machine.held_file import is_at
from realesr.machine.whole_file import file_sha256
from realesr.models.http_pieces import (
    SLOWEST_BYTES_PER_SECOND,
    BrokenError,
    CannotResumeError,
    Piece,
    RefusedError,
    received,
)
from realesr.progress import AmountCallback

if sys.platform != "win32":
    import fcntl

FEWEST_DIGITS = 8
"""Fewest digits of a SHA-256 that are accepted: as many as PyTorch's model files have in their names."""

LARGEST_UNKNOWN_BYTES = 1_000_000_000
"""Most bytes of a file whose size is not known: fifteen times the largest network."""

_VAIN_ATTEMPTS, _VAIN_ATTEMPTS_OF_OPTIONAL = 4, 1
"""Attempts in a row without much that is new, after which the download is given up."""
_OPTIONAL_ANSWER_SECONDS = 6.0
"""Time in which the answer with an optional file must begin: resolvers ask a second time after five seconds."""
_SECONDS_BEFORE_NEXT_ATTEMPT = 1.0
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class DownloadError(ModelError):
    """A file cannot be had from its server; `reason` says why in a few words, the message also what to do."""

    def __init__(self, message: str = "", *, option: str | None = None, reason: str = "") -> None:
        super().__init__(message, option=option)
        self.reason = reason


def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    size: int | None = None,
    on_progress: AmountCallback | None = None,
    advice: str | None = None,
    is_optional: bool = False,
) -> None:
    """Download `url` to `target`, which holds the complete, verified file afterwards, or is unchanged.

    Several processes may do so at once: one of them fetches the file, the others wait for it.

    Args:
        url: http or https.
        target: its folder is made. The bytes gather in `<target>.part`, which stays after a break, but not on a
            full disk.
        sha256: of the whole file, in hexadecimal: all 64 digits, or the first 8 or more where no more are published.
        size: bytes of the whole file, where known; else no more than `LARGEST_UNKNOWN_BYTES` are taken.
        on_progress: called with the bytes that are there and the bytes of the whole file (0: unknown).
        advice: what to do where the file cannot be had; by default, how the weights of a network are found without.
        is_optional: whether the caller has something to go on with: a computer without a network is then noticed in
            seconds, also where nothing refuses the connection.

    Raises:
        DownloadError: no connection, an answer without the file, or other bytes than promised.
        ModelError: no place to write.
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
                with _room_given_back(part):
                    _fetch_verified(url, part, sha256, size, on_progress, advice, is_optional)
                    part.replace(target)
    except OSError as error:
        raise ModelError(
            f"{error.filename or target} cannot be written: {error.strerror or error} "
            "(REALESR_CACHE names another folder)"
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
        # Neither a link nor a pipe that others have put there may be followed or waited for.
        with open(lock, "ab", opener=lambda path, flags: os.open(path, flags | _NO_LINK | os.O_NONBLOCK)) as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            # The one who had the lock has deleted the file: others may have made and locked a new one by now.
            if not is_at(file.fileno(), lock):
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


@contextmanager
def _room_given_back(part: Path) -> Iterator[None]:
    """Delete the unfinished file where the block finds the disk full: it would keep it full for everybody else."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part.unlink(missing_ok=True)
        raise


def _fetch_verified(
    url: str,
    part: Path,
    sha256: str,
    size: int | None,
    on_progress: AmountCallback | None,
    advice: str,
    is_optional: bool,
) -> None:
    """Download the complete file to `part` and verify its SHA-256."""
    is_resumed = _length(part) > 0
    _fetch(url, part, size, on_progress, advice, is_optional)
    if is_resumed and not file_sha256(part).startswith(sha256):
        # What lay there from an earlier run may have been wrong from the start.
        part.unlink()
        _fetch(url, part, size, on_progress, advice, is_optional)
    got = file_sha256(part)
    if not got.startswith(sha256):
        part.unlink()
        raise DownloadError(
            f"{url} gave a file with SHA-256 {got[:16]}..., expected {sha256[:16]}...; it was deleted: "
            f"try again, or {advice}",
            reason="the server gives another file",
        )


def _fetch(
    url: str, part: Path, size: int | None, on_progress: AmountCallback | None, advice: str, is_optional: bool
) -> None:
    """Download the complete file to `part`, in several attempts if need be."""
    reason = ""
    most, vain = _length(part), 0
    most_vain = _VAIN_ATTEMPTS_OF_OPTIONAL if is_optional else _VAIN_ATTEMPTS
    while True:
        began = time.monotonic()
        try:
            return _append(url, part, size, on_progress, _OPTIONAL_ANSWER_SECONDS if is_optional else None)
        except RefusedError as error:
            raise DownloadError(f"{url} is not to be had: {error}; {advice}", reason=str(error)) from error
        except CannotResumeError as error:
            part.unlink(missing_ok=True)
            reason = str(error)
        except BrokenError as error:
            reason = str(error)
        new = _length(part) - most
        seconds = time.monotonic() - began + _SECONDS_BEFORE_NEXT_ATTEMPT
        # Otherwise a server that breaks off after every byte would be asked for ever.
        is_vain = new <= 0 or new < SLOWEST_BYTES_PER_SECOND * seconds
        vain = vain + 1 if is_vain else 0
        most += max(new, 0)
        if vain >= most_vain:
            break
        time.sleep(_SECONDS_BEFORE_NEXT_ATTEMPT)
    raise DownloadError(
        f"{url} cannot be fetched ({reason}): check the connection and try again, or {advice}", reason=reason
    )


def _append(
    url: str, part: Path, size: int | None, on_progress: AmountCallback | None, answer_seconds: float | None
) -> None:
    """Request the missing bytes once, and append them to `part`; see `received`."""
    there, most = _length(part), LARGEST_UNKNOWN_BYTES if size is None else size
    if there > most:
        part.unlink()
        there = 0
    if there == size:
        return
    try:
        with closing(received(url, there, answer_seconds)) as pieces:
            first = next(pieces)
            _check_total(first.total, size)
            total = first.total or size or 0
            end = _write(pieces, part, first.offset, most, lambda end: on_progress and on_progress(end, total))
    except CannotResumeError as error:
        if there and error.total == there:
            return
        raise
    if end > most:
        part.unlink()
        raise RefusedError(f"it has more than the {most:,} bytes that were expected")
    if end < total:
        raise BrokenError(f"the connection ended after {end} of {total} bytes")


def _write(pieces: Iterator[Piece], part: Path, offset: int, most: int, tell: Callable[[int], object]) -> int:
    """Write the pieces from `offset` on, and return where they end; stop at `most` bytes or where there are more."""
    end = offset
    with _opened(part, offset) as file:
        for piece in pieces:
            end += len(piece.content)
            if end > most:
                break
            file.write(piece.content)
            tell(end)
            if end == most:  # what may still come is not waited for
                break
    return end


def _check_total(stated: int | None, size: int | None) -> None:
    """Raise RefusedError where the server states that it has another file, or one that is too large."""
    if stated is None:
        return
    if size is not None and stated != size:
        raise RefusedError(f"the server's file has {stated:,} bytes, expected {size:,}")
    if stated > LARGEST_UNKNOWN_BYTES and size is None:
        raise RefusedError(f"the server's file has {stated:,} bytes, expected at most {LARGEST_UNKNOWN_BYTES:,}")


def _length(part: Path) -> int:
    """Return the bytes of the unfinished file; a link, a pipe or a file with a second name is removed.

    Raises:
        OSError: it is a folder.
    """
    try:
        found = part.lstat()
    except FileNotFoundError:
        return 0
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return found.st_size
    part.unlink()
    return 0


def _opened(part: Path, there: int) -> BinaryIO:
    """Open the unfinished file at its end, or a new one where nothing is there that counts."""
    if not there:
        part.unlink(missing_ok=True)
    flags = os.O_WRONLY | _NO_LINK | (0 if there else os.O_CREAT | os.O_EXCL)
    file = os.fdopen(os.open(part, flags, 0o666), "wb")
    file.seek(there)
    return file
