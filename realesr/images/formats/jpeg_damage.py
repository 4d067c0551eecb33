"""Tells rows of a JPEG file that were decoded from those that libjpeg made up.

libjpeg fills what it cannot decode with grey, and only warns. Three things show it: its warnings; scans that are
missing, by the scan headers; and entropy-coded data that are left over after the last row, where damage has changed
how many blocks they hold. Damage that keeps the number of blocks and their codes valid cannot be seen by anyone: JPEG
has no checksum.

Source: ITU-T T.81, F.2.2 and G.1.1.1; libjpeg-turbo's behaviour was measured.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.formats.jpeg_segments import ARITHMETIC, JpegLayout, missing_components
from realesr.images.formats.jpeg_source import JpegSource
from realesr.images.libvips import own_messages, pyvips

PADDING_BYTES = 8
"""Bytes that may be left over: some encoders pad the data to a multiple of 2, 4 or 8 bytes."""
_READ_AHEAD_BYTES = 16
"""More than libjpeg reads beyond what it has decoded: 8 bytes in a register."""
_FILLED_BYTES = 256
"""Length of a run of one value in entropy-coded data that is taken for a lost stretch, once a file is damaged."""
_STEP_PX = 8
_FINE_BYTES = 256
_PREMATURE, _EXHAUSTED = "premature end", "its compressed data end before its rows"
_CHUNK_BYTES, _SECTOR_BYTES = 1 << 18, 512
"""Size of a disk sector: damage begins at a multiple of it, and shows a little later."""
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


class RowCheck:
    """Checks the rows of one JPEG file while they are read.

    Call it within `own_messages`, after each read, with whether the last row has been read, and with libvips' error
    where it raised one. It returns a notice where made-up rows are allowed, once.
    """

    def __init__(self, path: Path, layout: JpegLayout, source: JpegSource, *, allow_damaged: bool) -> None:
        """Check what `source` gives of the file at `path`."""
        self._path, self._layout, self._source, self._allow = path, layout, source, allow_damaged
        self._told = self._were_scans_checked = False

    def __call__(self, at_end: bool, error: Exception | None = None) -> str | None:
        """Return a notice about rows that were made up, or None.

        Raises:
            InputError: rows were made up, and that is not allowed.
        """
        reason = None if self._told else _first_warning(str(error)) if error else self._fault(at_end)
        if reason is None:
            return None
        self._told = True
        what = found_damage(self._path, self._layout, reason)
        if not self._allow:
            raise InputError(f"{self._path} is {what}; get a whole copy", option="allow_damaged")
        return f"the file is {what}; what it has lost was made up"

    def _fault(self, at_end: bool) -> str | None:
        """Return what is wrong with the rows read so far, or None."""
        warning = _warning()
        if warning and not self._is_padding(warning):
            return warning
        if self._layout.has_one_scan:
            return self._left_over() if at_end else None
        if self._were_scans_checked:  # they were all decoded for the first row
            return None
        self._were_scans_checked = True
        return incomplete_scans(self._layout) or zeroed_scan(self._path, self._layout, self._source.padding_start)

    def _left_over(self) -> str | None:
        """Return what is wrong with the end of a single scan whose rows were all decoded, or None."""
        given, source = self._source.given, self._source
        if given >= source.data_end and self._layout.frame and self._layout.frame.marker in ARITHMETIC:
            return exhausted_early(self._path, self._layout)
        unread = source.data_end - given
        is_padding = given <= source.padding_start + _READ_AHEAD_BYTES
        if unread <= PADDING_BYTES or (is_padding and source.padding_start - given <= PADDING_BYTES):
            return None
        return f"{unread} bytes of its compressed data are left over after the last row"

    def _is_padding(self, warning: str) -> bool:
        """Return whether a warning is about padding before the end marker, after several scans.

        Where restart markers are due, it may as well be about a lost one.
        """
        found = _EXTRANEOUS.search(warning)
        if found is None or self._layout.has_one_scan or self._layout.has_restarts:
            return False
        unread, zeros = int(found[1]), self._source.data_end - self._source.padding_start
        return unread <= PADDING_BYTES or zeros - _READ_AHEAD_BYTES <= unread <= zeros + PADDING_BYTES


def found_damage(path: Path, layout: JpegLayout, reason: str) -> str:
    """Return where the file at `path` is damaged, in words: after which row, or in which scan."""
    frame = layout.frame
    assert frame is not None
    if not layout.has_one_scan:
        number = _damaged_scan(path, layout)
        place = f"in scan {number} of {len(layout.scans)}" if number else f"after scan {len(layout.scans)}"
        return f"truncated or damaged {place} ({reason})"
    row = first_bad_row(path, layout)
    if row is None:
        return f"damaged ({reason}), so that rows before it are wrong"
    if not reason.startswith(_PREMATURE) and reason != _EXHAUSTED:
        return f"damaged in or before row {row} of {frame.height_px} ({reason})"
    before = "" if not layout.has_end else " or damaged before it"
    return f"truncated after row {row} of {frame.height_px}{before} ({reason})"


def incomplete_scans(layout: JpegLayout) -> str | None:
    """Return what the scans leave out of a file that has several, or None where they are complete.

    Each coefficient of each component must come to its last bit (T.81, G.1.1.1). The standard lets an encoder stop
    before; none does, and a file that was cut between two scans shows it in no other way.
    """
    if layout.frame is None or missing_components(layout):
        return "scans are missing"
    left = {identifier: np.full(64, 255) for identifier, _, _ in layout.frame.components}
    for scan in layout.scans:
        for identifier in scan.components:
            left[identifier][scan.first_coefficient : scan.last_coefficient + 1] = scan.bits_left_out
    if any(bits.any() for bits in left.values()):
        return "scans are missing"
    if layout.strays:
        return f"a marker inside of compressed data, at byte {layout.strays[0]}"
    return None


def zeroed_scan(path: Path, layout: JpegLayout, data_end: int) -> str | None:
    """Return where a scan that refines AC coefficients has lost a disk sector to zeros, before `data_end`, or None.

    A decoder takes zeros there for correction bits. An encoder writes few of them in a row: libjpeg at most 1000 bits
    between codes, and even regular patterns came to no more than 117 bytes. In all other scans zeros may be data.
    """
    if layout.frame is None or layout.frame.marker in ARITHMETIC:
        return None
    with path.open("rb") as file:
        for number, scan in enumerate(layout.scans, 1):
            if scan.is_refinement and scan.first_coefficient:
                end = min(scan.end, data_end)
                for start in range(scan.start, end, _CHUNK_BYTES):
                    file.seek(start)
                    data = file.read(min(end - start, _CHUNK_BYTES + _SECTOR_BYTES))
                    if bytes(_SECTOR_BYTES) in data:
                        return f"{_SECTOR_BYTES} zeros within scan {number}"
    return None


def first_bad_row(path: Path, layout: JpegLayout) -> int | None:
    """Return the first row of a single scan that may be made up, at most 8 too low; None where none can be told."""
    suspect = _suspect_offset(path, layout)
    next_row = 0
    try:
        with own_messages(path):
            for row, given, _ in _decoded_steps(path, layout):
                if _warning() or (suspect is not None and given > suspect):
                    return row
                next_row = row + _STEP_PX
    except pyvips.Error:
        return next_row
    return None


def exhausted_early(path: Path, layout: JpegLayout) -> str | None:
    """Return what is wrong with an arithmetic-coded scan that ends before its rows do, or None.

    The end of arithmetic-coded data is no error to a decoder: zeros follow (T.81, D.2.6), and a plain rest of the
    picture takes no byte. So a rest is taken for made up only where it is not plain.
    """
    assert layout.frame is not None
    end, near_end, last_row = layout.scans[0].end, None, None
    with own_messages(path):
        for row, given, pixels in _decoded_steps(path, layout):
            if near_end is None and given >= end - _READ_AHEAD_BYTES:
                near_end = row
            if last_row is None and near_end is not None and given >= end:
                # What was read ahead lasts about as long as as many bytes before it did.
                last_row = 2 * row - near_end + 2 * layout.frame.mcu_rows_px
            if last_row is not None and row > last_row and (pixels != pixels[0, 0]).any():
                return _EXHAUSTED
    return None


def _damaged_scan(path: Path, layout: JpegLayout) -> int | None:
    """Return the number, from 1, of the first scan whose data are damaged, or None where it cannot be told."""
    offsets = layout.strays[:1]

    def watch(given: int) -> None:
        if _warning():
            offsets.append(given)

    with (
        own_messages(path),
        JpegSource(path, layout, most_bytes=_FINE_BYTES, on_read=watch) as source,
        contextlib.suppress(pyvips.Error),
    ):
        pyvips.vips_lib.vips_error_clear()
        image = source.load("jpegload", unlimited=True)
        pyvips.Region.new(image).fetch(0, 0, image.width, min(_STEP_PX, image.height))
        watch(source.given)
    if not offsets:
        return None
    return next((i for i, scan in enumerate(layout.scans, 1) if min(offsets) <= scan.end), len(layout.scans))


def _decoded_steps(path: Path, layout: JpegLayout) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Decode a file 8 rows at a time; yield each step's first row, the offset up to which data were read, and rows."""
    with JpegSource(path, layout, most_bytes=_FINE_BYTES) as source:
        image = source.load("jpegload", access="sequential", unlimited=True)
        region = pyvips.Region.new(image)
        pyvips.vips_lib.vips_error_clear()
        for row in range(0, image.height, _STEP_PX):
            rows = min(_STEP_PX, image.height - row)
            data = region.fetch(0, row, image.width, rows)
            yield row, source.given, np.frombuffer(data, np.uint8).reshape(rows, image.width, image.bands)


def _suspect_offset(path: Path, layout: JpegLayout) -> int | None:
    """Return the offset of the first bytes of a single scan that no encoder writes into a damaged file's data."""
    scan = layout.scans[0]
    places = [offset - offset % _SECTOR_BYTES for offset in layout.strays[:1]]
    if layout.frame is not None and layout.frame.marker in ARITHMETIC:
        places = [*places, scan.end - 1]
    with path.open("rb") as file:
        run = _run_start(file, scan.start, scan.end)
    return min([*places, *([] if run is None else [run])], default=None)


def _run_start(file: Any, start: int, end: int) -> int | None:
    """Return the offset of the first run of `_FILLED_BYTES` equal bytes from `start` to `end`, or None."""
    while start < end:
        file.seek(start)
        values = np.frombuffer(file.read(min(end - start, _CHUNK_BYTES)), np.uint8)
        changes = np.flatnonzero(np.diff(values, prepend=values[:1] ^ 1, append=values[-1:] ^ 1))
        long = np.flatnonzero(np.diff(changes) >= _FILLED_BYTES)
        if len(long):
            return start + int(changes[long[0]])
        if len(values) <= _FILLED_BYTES:
            return None
        start += len(values) - _FILLED_BYTES
    return None


def _warning() -> str | None:
    """Return libjpeg's first warning since `own_messages` began, or None. libvips keeps it where it keeps errors."""
    return _first_warning(pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode("utf-8", "replace"))


def _first_warning(report: str) -> str | None:
    """Return what libjpeg says first in a report of libvips, or None."""
    lines = [line for line in report.splitlines() if "Jpeg:" in line]
    return lines[0].split("Jpeg:", 1)[1].removeprefix(" Corrupt JPEG data:").strip() if lines else None
