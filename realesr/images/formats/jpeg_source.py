"""Gives libjpeg the JPEG stream that a file should have held: its tables and scans, and an end marker.

What libjpeg warns about besides damage is left out: metadata, bytes between segments, odd version numbers, whatever
follows the end. So each of its warnings is about the picture. libjpeg asks for bytes as it needs them; the last ones
are given one at a time, which shows how much entropy-coded data was left over after the last row.
"""

import bisect
import itertools
from collections.abc import Callable
from pathlib import Path

from realesr.images.file_source import FileSource
from realesr.images.formats.jpeg_segments import APP0, APP14, SOS, JpegLayout

_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
_END = b"\xff\xd9"
_SINGLY_BYTES = 64
"""How many bytes around a place of interest are given one at a time."""
_TAIL_BYTES = 1 << 16


class JpegSource(FileSource):
    """The normalised stream of a JPEG file as a source of bytes for libvips."""

    def __init__(
        self,
        path: Path,
        layout: JpegLayout,
        *,
        most_bytes: int = 1 << 12,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        """Open the file.

        Args:
            path: the file.
            layout: what it consists of; it has a scan.
            most_bytes: how many bytes are given at once.
            on_read: called whenever libjpeg has used what it was given, with the offset in the file up to there.
        """
        super().__init__(path)
        self._watch = on_read
        self._parts = normalised_parts(layout)
        self._starts = [0, *itertools.accumulate(len(part) for part in self._parts)]
        self._most_bytes = most_bytes
        self._position = 0
        data = layout.scans[-1]
        self.padding_start, self.data_end = self._trimmed_end(data.start, data.end)
        """Offsets in the file of the zeros that end the last scan's entropy-coded data, and of what ends the data."""
        self._singly = sorted((self.padding_start, self.data_end))
        self._plain = (0, 0, 0)
        """First and last position in the stream of data that may be given at any length, and the way to the file's."""

    @property
    def given(self) -> int:
        """Return the offset in the file up to which entropy-coded data were given."""
        part = min(bisect.bisect_right(self._starts, self._position) - 1, len(self._parts) - 1)
        while part >= 0:
            place = self._parts[part]
            if isinstance(place, range):
                return place.start + min(self._position - self._starts[part], len(place))
            part -= 1
        return 0

    def _on_read(self, size: int) -> bytes | None:
        """Return up to `size` bytes of one part of the stream, or None at the end and where the file is too short."""
        if self._watch is not None:
            self._watch(self.given)
        position = self._position
        first, last, offset = self._plain
        if first <= position and position + size <= last:  # nearly all bytes are read here
            self._file.seek(position + offset)
            data = super()._on_read(min(size, self._most_bytes))
        else:
            data = self._of_part(position, size)
        if data is None:
            return None
        self._position = position + len(data)
        return data

    def _of_part(self, position: int, size: int) -> bytes | None:
        """Return up to `size` bytes of the part at `position` in the stream, or None."""
        index = bisect.bisect_right(self._starts, position) - 1
        if index >= len(self._parts):
            return None
        part, skipped = self._parts[index], position - self._starts[index]
        count = min(size, len(part) - skipped)
        if isinstance(part, bytes):
            return part[skipped : skipped + count]
        offset = part.start - self._starts[index]
        self._plain = (self._starts[index], min(part.stop, self._singly[0] - _SINGLY_BYTES) - offset, offset)
        self._file.seek(position + offset)
        return super()._on_read(self._bytes_at(position + offset, min(count, self._most_bytes)))

    def _on_seek(self, offset: int, whence: int) -> int:
        """Move the position in the stream as `io.IOBase.seek` does, and return it."""
        self._position = offset + (0, self._position, self._starts[-1])[whence]
        return self._position

    def _bytes_at(self, start: int, count: int) -> int:
        """Return how many of `count` bytes to give at `start`: one near a place of interest, none beyond its edge."""
        for place in self._singly:
            if start < place - _SINGLY_BYTES:
                return min(count, place - _SINGLY_BYTES - start)
            if start < place + _SINGLY_BYTES:
                return 1
        return count

    def _trimmed_end(self, start: int, end: int) -> tuple[int, int]:
        """Return where trailing zeros of the entropy-coded data start, and where the data end without fill bytes.

        Restart markers and fill bytes (0xFF) at the end belong to no MCU (T.81, B.1.1.2). Zeros may be padding or data.
        """
        first = max(start, end - _TAIL_BYTES)
        self._file.seek(first)
        tail = self._file.read(end - first)
        while (shorter := _without_markers(tail)) != tail:
            tail = shorter
        trimmed = tail.rstrip(b"\0")
        if trimmed.endswith(b"\xff") and len(trimmed) < len(tail):
            trimmed += b"\0"
        return first + len(trimmed), first + len(tail)


def normalised_parts(layout: JpegLayout) -> list[bytes | range]:
    """Return the stream that libjpeg gets, as bytes and offsets in the file; no part is empty."""
    head = b"\xff\xd8" + _colour_segments(layout)
    parts: list[bytes | range] = []
    for part in layout.tables_and_scans:
        if isinstance(part, bytes):
            head += part
            if part[1] == SOS:
                parts.append(head)
                head = b""
        elif part:
            parts.append(part)
    return [*parts, head + _END]


def _colour_segments(layout: JpegLayout) -> bytes:
    """Return the segments by which libjpeg tells the colour space, with values that it knows.

    Like libjpeg, an Adobe segment with an unknown transform means YCbCr, or YCCK where there are four components.
    """
    components = len(layout.frame.components) if layout.frame else 0
    found = b""
    if any(marker == APP0 and data.startswith(b"JFIF\0") and len(data) >= 14 for marker, data in layout.metadata):
        found += _JFIF
    adobe = [data for marker, data in layout.metadata if marker == APP14 and data[:5] == b"Adobe" and len(data) >= 12]
    if adobe:
        coded = 2 if components == 4 else 1
        found += _ADOBE + bytes((adobe[-1][11] if adobe[-1][11] in (0, coded) else coded,))
    return found


def _without_markers(tail: bytes) -> bytes:
    """Return the end of entropy-coded data without one restart marker and fill bytes at its end."""
    tail = tail.rstrip(b"\xff")
    if len(tail) > 1 and tail[-2] == 0xFF and 0xD0 <= tail[-1] <= 0xD7:
        return tail[:-2]
    return tail
