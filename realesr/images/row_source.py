"""Hands rows to libvips as they are made, as a TIFF file that never exists as a whole.

libvips reads pixels from files; from Python it accepts whole images only. So the rows get the header of an
uncompressed TIFF and are offered as a source of bytes, which libvips reads from front to back as it encodes. A stored
PNG would do as well, but its checksums cost four times as much (here, RGB of 8 bit: 120 against 500 MB/s of one core).

Source of the layout: TIFF 6.0, part 1; BigTIFF by libtiff (every file here is one, so that nothing overflows).
"""

import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.images.info import ImageInfo
from realesr.images.libvips import pyvips
from realesr.images.metadata.tiff_fields import LONG, LONG8, SHORT, Field, Layout, pack_fields
from realesr.machine.leaving import back_in_python

Rows = NDArray[np.uint8] | NDArray[np.uint16]

_ROWS_A_STRIP = 16
_MOST_WAITING_BANDS = 2


class RowSource:
    """A pipe of rows: one thread writes, libvips reads in another. Writing waits while two bands are unread."""

    def __init__(self, info: ImageInfo, before_failure: Callable[[], None] = lambda: None) -> None:
        """Make an empty pipe; `before_failure` is called in libvips' thread before it finds that rows are missing."""
        self._before_failure = before_failure
        self._header = _tiff_header(info)
        self._row_bytes = info.width_px * info.channels * info.bits // 8
        self._total_bytes = len(self._header) + self._row_bytes * info.height_px
        self._position = 0
        self._waiting: deque[memoryview] = deque((memoryview(self._header),))
        self._front = 0  # position of the first byte that waits
        self._expects_more = True
        self._is_read = True
        self._changed = threading.Condition()

    def open(self) -> Any:
        """Return the rows as a pyvips image, which may be read once, from the first row to the last."""
        self._source = (
            pyvips.SourceCustom()
        )  # held here: libvips calls it for as long as it reads, but does not hold it
        self._source.on_read(self._on_read)
        self._source.on_seek(self._on_seek)
        return pyvips.Image.tiffload_source(self._source, access="sequential", fail_on="error")

    def write(self, rows: Rows) -> bool:
        """Append rows; return False once the reader has stopped."""
        data = memoryview(rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())
        with self._changed:
            self._changed.wait_for(lambda: not self._is_read or len(self._waiting) < _MOST_WAITING_BANDS)
            self._waiting.append(data)
            self._changed.notify_all()
            return self._is_read

    def end(self) -> None:
        """Mark the end of the rows: where some are missing, libvips reports a truncated file."""
        with self._changed:
            self._expects_more = False
            self._changed.notify_all()

    def stop_reading(self) -> None:
        """Stop reading: from now on `write` returns False at once."""
        with self._changed:
            self._is_read = False
            self._waiting.clear()
            self._changed.notify_all()

    def _on_read(self, size: int) -> bytes | memoryview:
        """Return up to `size` bytes from the current position, as soon as there are any; empty at the end."""
        with self._changed:
            while True:
                while self._waiting and self._front + len(self._waiting[0]) <= self._position:
                    self._front += len(self._waiting.popleft())
                    self._changed.notify_all()
                if self._waiting or not self._expects_more:
                    break
                with back_in_python():
                    self._changed.wait()
            if not self._waiting or self._position < self._front:
                head = self._header_part(size)
                if not head and self._position < self._total_bytes:
                    self._before_failure()
                return head
            start = self._position - self._front
            part = self._waiting[0][start : start + size]
            self._position += len(part)
            return bytes(part)

    def _header_part(self, size: int) -> bytes:
        """Return bytes of the header, which libvips reads twice; empty for rows that were dropped after reading."""
        part = self._header[self._position : self._position + size]
        self._position += len(part)
        return part

    def _on_seek(self, offset: int, whence: int) -> int:
        """Move the position as `io.IOBase.seek` does, and return it."""
        base = (0, self._position, self._total_bytes)[whence]
        self._position = base + offset
        return self._position


def _tiff_header(info: ImageInfo) -> bytes:
    """Return everything before the first row of an uncompressed BigTIFF in strips."""
    layout = Layout("<", big=True)
    row_bytes = info.width_px * info.channels * info.bits // 8
    heights = [min(_ROWS_A_STRIP, info.height_px - top) for top in range(0, info.height_px, _ROWS_A_STRIP)]
    grey_or_rgb = 1 if info.is_grey else 2

    def fields(first_row_at: int) -> list[Field]:
        """Return the fields of the directory, for rows that start at this offset."""
        starts = [first_row_at + index * _ROWS_A_STRIP * row_bytes for index in range(len(heights))]
        alpha = [_field(338, SHORT, [2])] if info.has_alpha else []
        return [
            _field(256, LONG, [info.width_px]),
            _field(257, LONG, [info.height_px]),
            _field(258, SHORT, [info.bits] * info.channels),
            _field(259, SHORT, [1]),
            _field(262, SHORT, [grey_or_rgb]),
            _field(273, LONG8, starts),
            _field(277, SHORT, [info.channels]),
            _field(278, LONG, [_ROWS_A_STRIP]),
            _field(279, LONG8, [height * row_bytes for height in heights]),
            _field(284, SHORT, [1]),
            *alpha,
        ]

    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16)
    size = len(head) + len(pack_fields(fields(0), layout, len(head)))
    return head + pack_fields(fields(size), layout, len(head))


def _field(tag: int, kind: int, values: list[int]) -> Field:
    form = {SHORT: "H", LONG: "I", LONG8: "Q"}[kind]
    return Field(tag, kind, len(values), struct.pack(f"<{len(values)}{form}", *values))
