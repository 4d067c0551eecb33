"""A file that libvips encodes into: Python writes it, to keep the system's error messages and to insert metadata."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from realesr.images.libvips import pyvips


class FileTarget:
    """An empty file that libvips writes to. Leaving `with` closes it."""

    def __init__(
        self, path: Path, *, inserted: bytes = b"", at: int = 0, before_failure: Callable[[], None] = lambda: None
    ) -> None:
        """Open the file at `path`.

        Args:
            path: path of the file, which is empty.
            inserted: bytes that go behind the first `at` bytes that libvips writes.
            at: see `inserted`.
            before_failure: called in libvips' thread before it is told that a write has failed.
        """
        self.error: OSError | None = None
        self._file = path.open("rb+")
        self._before_failure = before_failure
        self._inserted, self._at, self._head = inserted, at, b""

    def open(self) -> Any:
        """Return the pyvips target, for one save."""
        self._target = pyvips.TargetCustom()  # held here: libvips calls it for as long as it writes
        self._target.on_write(self._on_write)
        self._target.on_read(self._on_read)
        self._target.on_seek(self._on_seek)
        return self._target

    def _on_write(self, data: Any) -> int:
        """Write data and return the number of bytes written; 0 ends the save, and `error` then has the reason."""
        try:
            if self._inserted:
                self._head += bytes(data)
                if len(self._head) < self._at:
                    return len(data)
                self._file.write(self._head[: self._at] + self._inserted + self._head[self._at :])
                self._inserted = b""
            else:
                self._file.write(data)
        except OSError as error:
            self._fail(error)
            return 0
        return len(data)

    def _on_read(self, size: int) -> bytes:
        """Return bytes from the current position, which libvips needs for TIFF; none after an error."""
        try:
            return self._file.read(size)
        except OSError as error:  # what waited to be written could not be
            self._fail(error)
            return b""

    def _on_seek(self, offset: int, whence: int) -> int:
        """Move the position as `io.IOBase.seek` does, and return it; -1 after an error."""
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            self._fail(error)
            return -1

    def _fail(self, error: OSError) -> None:
        self.error = self.error or error
        self._before_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as closing:
            self.error = self.error or closing
