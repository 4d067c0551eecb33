"""Keeps two runs out of one folder: a lock on a file there, which the system releases when the process ends."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realesr.errors import OutputError, UsageError

if sys.platform != "win32":
    import fcntl

LOCK = "lock"


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold the lock on a run's folder, which is made where it is missing.

    Windows, and disks that know no locks, have none. The file stays: one that is deleted could be locked by a second
    process that had opened it before.

    Raises:
        UsageError: another process holds it; its number and machine are named.
        OutputError: the folder cannot be written.
    """
    path = run / LOCK
    try:
        run.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}): choose another folder", option="out"
        ) from error
    with open(number, "r+b", buffering=0) as file:
        _take(number, run)
        with contextlib.suppress(OSError):  # who has it is a courtesy: a full disk is told where something is saved
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def _take(number: int, run: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(number, 200, 0).decode("ascii", "replace").strip()
        who = holder if holder.startswith("process ") and holder.isprintable() else "another process"
        raise UsageError(
            f"{run} is in use: {who} trains there; wait for it or stop it, or choose another folder", option="out"
        ) from None
    except OSError:
        return  # this disk knows no locks
