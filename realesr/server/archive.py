"""Writes a ZIP file of results while it is being sent: stored, for images are compressed already, and never on disk."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from .file_names import numbered

CHUNK_BYTES = 1 << 20
MOST_FILES = 1000
"""Most results in one ZIP file."""

_LARGE_BYTES = 2_000_000_000
"""From here on an entry has 64-bit sizes; below, old programs can read it, too."""


class Pieces:
    """A file that is written to, and emptied by its reader; it cannot be sought in."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Take bytes; called by zipfile."""
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing; called by zipfile."""

    def take(self) -> bytes:
        """Return what has been written since the last call."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def zip_chunks(files: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """Yield a ZIP file in pieces of about a megabyte.

    Args:
        files: names in the archive, made different by numbers where they are the same, and paths.

    Raises:
        OSError: a file has gone or cannot be read. The archive ends in the middle, which every program notices.
    """
    pieces = Pieces()
    names = numbered([name for name, _ in files])
    with ZipFile(cast(IO[bytes], pieces), "w", ZIP_STORED) as archive:  # it needs no more than `write` and `flush`
        for name, (_, path) in zip(names, files, strict=True):
            yield from _entry(archive, name, path, pieces)
    yield pieces.take()


def _entry(archive: ZipFile, name: str, path: Path, pieces: Pieces) -> Iterator[bytes]:
    """Yield the bytes of one entry."""
    info = ZipInfo(name, time.localtime()[:6])
    info.external_attr = 0o644 << 16
    is_large = path.stat().st_size >= _LARGE_BYTES
    with path.open("rb") as source, archive.open(info, "w", force_zip64=is_large) as entry:
        while chunk := source.read(CHUNK_BYTES):
            entry.write(chunk)
            yield pieces.take()
