"""A file that libvips encodes into: Python writes it, to keep the system's error messages and to insert PNG chunks."""

import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from realesr.images.libvips import pyvips

_PNG_HEAD_BYTES = 33  # signature and IHDR, which nothing may come before


class FileTarget:
    """A new file that libvips writes to. Leaving `with` closes it."""

    def __init__(self, path: Path, *, png_chunks: bytes = b"") -> None:
        """Create the file at `path`; `png_chunks` go between a PNG file's IHDR and everything else."""
        self.error: OSError | None = None
        self._file = path.open("xb+")
        self._chunks, self._head = png_chunks, b""

    def open(self) -> Any:
        """Return the pyvips target, for one save."""
        self._target = pyvips.TargetCustom()  # held here: libvips calls it for as long as it writes
        self._target.on_write(self._on_write)
        self._target.on_read(self._file.read)
        self._target.on_seek(self._file.seek)
        return self._target

    def _on_write(self, data: Any) -> int:
        """Write data and return the number of bytes written; 0 ends the save, and `error` then has the reason."""
        try:
            if self._chunks:
                self._head += bytes(data)
                if len(self._head) < _PNG_HEAD_BYTES:
                    return len(data)
                self._file.write(self._head[:_PNG_HEAD_BYTES] + self._chunks + self._head[_PNG_HEAD_BYTES:])
                self._chunks = b""
            else:
                self._file.write(data)
        except OSError as error:
            self.error = error
            return 0
        return len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as closing:
            self.error = self.error or closing


def xmp_chunk(xmp: bytes) -> bytes:
    """Return XMP as an uncompressed iTXt chunk of PNG. libvips writes zTXt, where other programs do not look.

    Source: PNG specification, 11.3.3.4; XMP specification, part 3, 1.1.5.
    """
    data = b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + xmp
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
