"""Holds a temporary file for as long as its process lives, and removes those that killed processes have left.

The kernel frees a lock when its process ends, however it ends (flock(2)). Where there are no locks, on Windows and on
some network disks, files are made all the same, and nothing is removed.
"""

import contextlib
import os
import sys
from pathlib import Path

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
