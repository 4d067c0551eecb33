"""Holds files and names for as long as a process lives, and removes files that killed processes have left.

The kernel frees a lock when its process ends, however it ends (flock(2)). Where there are no locks, on Windows and on
some network disks, files are made all the same, nothing is removed, and no name is held.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

if sys.platform != "win32":
    import fcntl


class HeldFile:
    """A new, empty file, which other processes know to be in use until `release`."""

    def __init__(self, path: Path) -> None:
        """Create the file; raises OSError where it exists or cannot be made."""
        self._descriptor: int | None = None
        while self._descriptor is None:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            if sys.platform == "win32":
                os.close(descriptor)  # an open file could not be renamed
                return
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if is_at(descriptor, path):
                self._descriptor = descriptor
            else:  # removed by another process before it was locked
                os.close(descriptor)

    def release(self) -> None:
        """Let the file go, whatever it is called by now; releasing twice is allowed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class LockFile:
    """A name in a folder that this process holds, or nothing at all where that is not possible; see `take_lock`."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path, self._descriptor = path, descriptor
        self.taken_ns: int | None = None
        """When it was taken, by the clock of its disk, as st_ctime_ns has it; None where nothing is held."""
        if descriptor is not None:
            with contextlib.suppress(OSError):  # of another user, who was killed: it keeps an earlier time
                os.utime(descriptor)
            self.taken_ns = os.fstat(descriptor).st_ctime_ns

    def release(self) -> None:
        """Remove the file, and let the name go; releasing twice is allowed."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()  # while it is held: afterwards it may be another process's
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def take_lock(path: Path) -> LockFile | None:
    """Return the lock file at `path`, made if it is missing; None while another process holds it.

    Where there are no locks, or no file can be made there, a LockFile that holds nothing is returned, and nothing is
    left there.
    """
    while sys.platform != "win32":
        try:
            descriptor = _open_lock_file(path)
        except OSError:
            break
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):  # the latter from SMB
                return None
            with contextlib.suppress(OSError):
                path.unlink()
            break
        if is_at(descriptor, path):
            return LockFile(path, descriptor)
        os.close(descriptor)  # removed by the process that held it
    return LockFile(path, None)


def _open_lock_file(path: Path) -> int:
    """Open a lock file, for writing if possible, which NFS asks for; raise OSError where it cannot be opened."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except PermissionError:  # another user's
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


@contextmanager
def locked(descriptor: int, *, shared: bool = False) -> Iterator[None]:
    """Wait for the lock of an open file, and hold it in the block; without effect where there are no locks."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Delete the files of a folder that match `pattern`, and that no living process holds."""
    if sys.platform == "win32":
        return
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # held, gone, another user's, or on a disk without locks
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_at(descriptor, path):
                    path.unlink()
            finally:
                os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
