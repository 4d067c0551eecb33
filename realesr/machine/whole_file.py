"""Writes files and folders whole or not at all, and tells files apart by their bytes.

The content gathers beside its target, on the same disk, as `.realesr-<random>.part`, and is renamed once it is
complete: nobody ever sees half of it, and what was there before stays until then.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realesr.errors import OutputError


@contextmanager
def whole_file(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield the temporary path to write to; it becomes `target` once the block ends without an error.

    Args:
        target: replaced if it is there; its folder has to be there.
        durable: whether the content is on the disk before it gets its name, so that a power failure cannot leave an
            empty file there. Without it thousands of small files take less time.

    Raises:
        OSError: the folder is missing, full or cannot be written. After this and any other error nothing is left of
            the temporary file, and what was there as `target` is still there.
    """
    part = temporary_path(target)
    try:
        yield part
        put_in_place(part, target, durable=durable)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(target: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file; see `whole_file`, but the folder is made where it is missing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target, durable=durable) as part:
        part.write_bytes(content)


@contextmanager
def whole_folder(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a new folder beside `target`, which becomes `target` once the block ends without an error.

    Args and errors are those of `whole_file`, but the folder around `target` is made where it is missing.
    """
    with folder_beside(target) as folder:
        yield folder
        if durable:
            for file in folder.rglob("*"):
                if file.is_file():
                    _flush_to_disk(file)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(folder, target)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """Yield a new folder on the disk of `target`, for files that `put_in_place` moves later; it is deleted afterwards.

    Raises:
        OSError: it cannot be made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_path(target)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_path(target: Path) -> Path:
    """Return a path beside `target` that nothing else uses: `.realesr-<random>.part`."""
    return target.with_name(f".realesr-{secrets.token_hex(6)}.part")


def put_in_place(part: Path, target: Path, *, durable: bool = True) -> None:
    """Give a complete file its name, in one step that either happens or does not; see `whole_file`.

    Raises:
        OSError: it cannot be done; both files are as they were.
    """
    if durable:
        _flush_to_disk(part)
    os.replace(part, target)


def remove_unfinished(folder: Path) -> None:
    """Delete what processes that were killed left in a folder that no other process writes to."""
    for part in folder.glob(".realesr-*.part"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def not_written(target: Path, error: OSError, advice: str) -> OutputError:
    """Return the error for people: the reason, and what to do, like "free some space, or choose another folder"."""
    return OutputError(f"{target} cannot be written ({error.strerror or error}): {advice}")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; raise OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
