"""Makes folders for temporary files that only this user can enter, and that do not outlive their process for long."""

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realesr.machine.held_file import is_at

if sys.platform != "win32":
    import fcntl


@contextmanager
def private_folder(prefix: str) -> Iterator[Path]:
    """Yield a new folder in the system's place for temporary files, which is deleted afterwards.

    Folders of the same prefix that killed processes have left there are deleted, too; not where there are no locks.

    Args:
        prefix: beginning of the folder's name, of this use alone.

    Raises:
        OSError: there is no such place, or it cannot be written to.
    """
    _remove_abandoned(Path(tempfile.gettempdir()), prefix)
    folder, descriptor = _new_folder(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _new_folder(prefix: str) -> tuple[Path, int | None]:
    """Return a new folder, and the descriptor whose lock tells others that it is in use; None where there are none."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))  # of mode 0700
        if sys.platform == "win32":
            return folder, None
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # removed by another process before it was locked
            continue
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_at(descriptor, folder):
            return folder, descriptor
        os.close(descriptor)


def _remove_abandoned(place: Path, prefix: str) -> None:
    """Delete this user's folders in `place` that begin with `prefix`, and that no living process holds."""
    if sys.platform == "win32":
        return
    for folder in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # held, gone, or on a disk without locks
            if folder.lstat().st_uid != os.getuid() or not stat.S_ISDIR(folder.lstat().st_mode):
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_at(descriptor, folder):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
