"""The server's files: a private folder with one folder for each job, gone when the server is."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realesr.errors import OutputError
from realesr.machine.private_folder import private_folder

PREFIX = "realesr-serve-"
JOB_PREFIX = "job-"
"""Beginning of the names of jobs' folders."""
LEAST_FREE_BYTES = 50_000_000
"""With less room than this on the disk no upload is taken."""


class Storage:
    """The folder of one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new_folder(self, name: str) -> Path:
        """Make an empty folder for one job or one child process.

        Raises:
            OutputError: it cannot be made.
        """
        path = self.folder / name
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            raise OutputError(f"the server has no room for files ({error.strerror}): free some") from error
        return path

    def remove(self, folder: Path) -> None:
        """Delete a folder that `new_folder` has made, with all that is in it."""
        if folder.parent != self.folder:
            raise ValueError(f"got {folder}, which is not one of {self.folder}")
        shutil.rmtree(folder, ignore_errors=True)

    def empty(self, folder: Path) -> None:
        """Delete all that is in a folder that `new_folder` has made."""
        self.remove(folder)
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700)

    def job_folders(self) -> list[Path]:
        """Return the folders of jobs."""
        return list(self.folder.glob(f"{JOB_PREFIX}*"))

    @property
    def free_bytes(self) -> int:
        """Return the room on the disk.

        Raises:
            OutputError: the server's folder is gone.
        """
        try:
            return shutil.disk_usage(self.folder).free
        except OSError as error:
            raise OutputError(
                f"the server's folder for temporary files is gone ({error.strerror}): start the server again"
            ) from error


@contextmanager
def open_storage() -> Iterator[Storage]:
    """Make the server's folder in the system's place for temporary files; what killed servers left there is deleted.

    Raises:
        OutputError: there is no such place, or it cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder(PREFIX))
        except OSError as error:
            raise OutputError(f"temporary files cannot be written ({error.strerror}): set TMPDIR") from error
        yield Storage(folder)
