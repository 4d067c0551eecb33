"""Reads a file for libvips.

libvips maps files into memory, and the process dies of SIGBUS when a mapped file becomes shorter. Here Python reads the
bytes, so that missing ones are an error of this file alone.
"""

import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from realesr.images.libvips import pyvips

_BUFFER_BYTES = 1 << 18


class FileSource:
    """An open file as a source of bytes for libvips. Keep it for as long as an image that reads from it.

    Leaving `with` closes it, and so does nobody knowing it any more.
    """

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        """Error of the system while reading, where there was one: libvips only reports missing bytes."""
        self._file = path.open("rb", buffering=_BUFFER_BYTES)
        weakref.finalize(self, self._file.close).atexit = False  # a daemon thread may still be reading then
        self._source: Any = pyvips.SourceCustom()
        self._source.on_read(self._on_read)
        self._source.on_seek(self._on_seek)

    def load(self, loader: str, **options: Any) -> Any:
        """Return the pyvips image that a loader, such as "jpegload", finds in the file; raises pyvips.Error."""
        # At any lesser `fail_on` the TIFF loader goes on after missing rows.
        return getattr(pyvips.Image, f"{loader}_source")(self._source, **{"fail_on": "error", **options})

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_read(self, size: int) -> bytes | None:
        """Return up to `size` bytes from the current position, or None at the end."""
        try:
            return self._file.read(size) or None
        except OSError as error:
            self.error = error
            return None

    def _on_seek(self, offset: int, whence: int) -> int:
        """Move the position as `io.IOBase.seek` does, and return it."""
        return self._file.seek(offset, whence)
