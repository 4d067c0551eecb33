"""Finds the segments and scans of a JPEG file, without decoding them; what its metadata says is in `jpeg_metadata`.

    marker segments (tables, frame, metadata) -> scan header -> entropy-coded data -> segments -> scan ... -> EOI

Files from cameras and web sites have bytes that no segment owns: fill bytes, padding, a second image after the end.
They are stepped over. A marker inside of entropy-coded data that starts no segment is damage, and is noted as such.

Source of the layout: ITU-T T.81, Annex B; JFIF: ITU-T T.871; the Adobe segment: Adobe Technical Note 5116.
"""

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

SOF0, SOF1, SOF2, SOF9, SOF10 = 0xC0, 0xC1, 0xC2, 0xC9, 0xCA
DHT, JPG, DAC, SOI, EOI, SOS, DQT, DNL, DRI, DHP = 0xC4, 0xC8, 0xCC, *range(0xD8, 0xDF)
APP0, APP1, APP2, APP14, SOF55 = 0xE0, 0xE1, 0xE2, 0xEE, 0xF7

PROGRESSIVE, ARITHMETIC = (SOF2, SOF10), (SOF9, SOF10)
_READ = (SOF0, SOF1, SOF2, SOF9, SOF10)
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), SOF55)
_TABLES = (DHT, DAC, DQT, DRI)
_METADATA = (APP0, APP1, APP2, APP14)

_MOST_SEGMENTS = 20_000
_MOST_STRAYS = 4096
_MOST_SCANS = 500
"""As libjpeg-turbo's own programs allow; each scan of a large frame takes a second. Cameras write up to a dozen."""
_MOST_TABLE_BYTES = _MOST_METADATA_BYTES = 2**25
_FIRST_BYTES, _CHUNK_BYTES = 1 << 12, 1 << 18


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame header (SOFn)."""

    marker: int
    bits: int
    width_px: int
    height_px: int
    components: tuple[tuple[int, int, int], ...]
    """Identifier, horizontal and vertical sampling factor of each."""

    @property
    def is_progressive(self) -> bool:
        """Return whether the scans refine one another."""
        return self.marker in PROGRESSIVE

    @property
    def mcu_rows_px(self) -> int:
        """Return the height of a row of MCUs of an interleaved scan."""
        return 8 * max(vertical for _, _, vertical in self.components)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A scan header (SOS) with the entropy-coded data after it, at the offsets `start` to `end` of the file."""

    components: tuple[int, ...]
    first_coefficient: int
    last_coefficient: int
    bits_left_out: int
    """Low bits of the coefficients that are left to later scans (Al)."""
    is_refinement: bool
    """Whether the scan adds a bit to coefficients that came before (Ah > 0)."""
    start: int
    end: int


@dataclass
class JpegLayout:
    """What a JPEG file consists of."""

    frame: Frame | None = None
    scans: list[Scan] = field(default_factory=list)
    tables_and_scans: list[bytes | range] = field(default_factory=list)
    """All that decoding needs after SOI, in order: segments as bytes, entropy-coded data as offsets in the file."""
    metadata: list[tuple[int, bytes]] = field(default_factory=list)
    """Marker and payload of the segments APP0, 1, 2 and 14 before the first scan."""
    has_end: bool = False
    """Whether EOI follows the last scan."""
    strays: list[int] = field(default_factory=list)
    """Offsets of the first markers in entropy-coded data that start no segment."""
    unsupported: str = ""
    """What the file is, where it is none that is read."""
    table_bytes: int = 0
    metadata_bytes: int = 0

    @property
    def has_one_scan(self) -> bool:
        """Return whether the rows can be decoded one after the other."""
        sequential = self.frame is not None and not self.frame.is_progressive
        return sequential and len(self.scans) == 1 and not missing_components(self)

    @property
    def has_restarts(self) -> bool:
        """Return whether a segment asks for restart markers."""
        return any(isinstance(part, bytes) and part[1] == DRI and any(part[4:6]) for part in self.tables_and_scans)


def missing_components(layout: JpegLayout) -> list[int]:
    """Return the identifiers of components that no scan has."""
    present = {identifier for scan in layout.scans for identifier in scan.components}
    return [c[0] for c in layout.frame.components if c[0] not in present] if layout.frame else []


def read_layout(file: BinaryIO) -> JpegLayout:
    """Return the layout of a JPEG file; a damaged one's is as much as could be found.

    Raises:
        OSError: the file cannot be read.
    """
    size = file.seek(0, 2)
    layout = JpegLayout()
    position = 2
    for _ in range(_MOST_SEGMENTS):
        found = find_marker(file, position, size)
        if found is None or layout.unsupported:
            break
        marker, payload, end = _segment(file, found, size)
        if marker == EOI or (marker == SOI and layout.scans):
            layout.has_end = marker == EOI and bool(layout.scans)
            break
        if payload is None:
            position = end
            continue
        if marker == SOS:
            end = _add_scan(file, layout, payload, end, size)
            if _is_finished(layout):
                layout.has_end = _end_follows(file, end, size)
                break
        else:
            _add_segment(layout, marker, payload)
        position = end
    if layout.frame is not None and layout.frame.height_px == 0 and layout.scans:
        _set_height_after_scan(file, layout, size)
    return layout


def find_marker(file: BinaryIO, start: int, size: int, *, in_scan: bool = False) -> int | None:
    """Return the offset of the 0xFF of the first marker from `start` on, or None.

    Args:
        file: the file, of `size` bytes.
        start: offset of the first byte to look at.
        size: offset of the end.
        in_scan: whether restart markers are passed over.
    """
    chunk = _FIRST_BYTES
    while start + 1 < size:
        file.seek(start)
        values = np.frombuffer(file.read(chunk + 1), np.uint8)
        if len(values) < 2:
            return None
        codes = values[1:]
        found = values[:-1] == 0xFF
        found &= codes != 0
        if found.any():
            found &= codes != 0xFF
            if in_scan:
                found &= codes & 0xF8 != 0xD0
            if found.any():
                return start + int(found.argmax())
        start += len(codes)
        chunk = min(4 * chunk, _CHUNK_BYTES)
    return None


def parsed_frame(marker: int, payload: bytes) -> Frame | None:
    """Return a frame header, or None where the segment is too short for its components."""
    if len(payload) < 6:
        return None
    bits, height, width, count = struct.unpack_from(">BHHB", payload)
    if len(payload) < 6 + 3 * count or not width or not count:
        return None
    fields = [payload[6 + 3 * i : 9 + 3 * i] for i in range(count)]
    components = tuple((entry[0], entry[1] >> 4, entry[1] & 15) for entry in fields)
    return Frame(marker=marker, bits=bits, width_px=width, height_px=height, components=components)


def _segment(file: BinaryIO, position: int, size: int) -> tuple[int, bytes | None, int]:
    """Return marker, payload and end of the segment at `position`; no payload where there is none that is whole."""
    file.seek(position)
    head = file.read(4)
    marker = head[1] if len(head) > 1 and head[0] == 0xFF else 0
    if marker < 0xC0 or 0xD0 <= marker <= EOI or len(head) < 4:
        return marker, None, position + 2
    length = struct.unpack_from(">H", head, 2)[0]
    if length < 2:
        return marker, None, position + 2
    end = position + 2 + length
    return marker, file.read(length - 2) if end <= size else None, min(end, size)


def _add_segment(layout: JpegLayout, marker: int, payload: bytes) -> None:
    """Note a segment other than a scan's."""
    if marker in (DHP, *_FRAMES) and marker not in _READ:
        if parsed_frame(marker, payload) is not None:
            name = {SOF55: "JPEG-LS", 0xC3: "lossless", 0xCB: "lossless"}.get(marker, "hierarchical")
            layout.unsupported = f"{name} JPEG"
    elif marker in _READ and layout.frame is None:
        layout.frame = parsed_frame(marker, payload)
        if layout.frame is not None:
            layout.tables_and_scans.append(_packed(marker, payload))
    elif marker in _TABLES and layout.table_bytes < _MOST_TABLE_BYTES:
        layout.table_bytes += len(payload)
        layout.tables_and_scans.append(_packed(marker, payload))
    elif marker in _METADATA and not layout.scans and layout.metadata_bytes < _MOST_METADATA_BYTES:
        layout.metadata_bytes += len(payload)
        layout.metadata.append((marker, payload))


def _add_scan(file: BinaryIO, layout: JpegLayout, payload: bytes, start: int, size: int) -> int:
    """Note a scan whose entropy-coded data start at `start`; return the offset of their end."""
    parsed = _parsed_scan(layout.frame, payload)
    if parsed is None or layout.frame is None:
        return start
    if len(layout.scans) >= _MOST_SCANS:
        layout.unsupported = f"JPEG of more than {_MOST_SCANS} scans"
    components, first, last, left_out = parsed
    end, following = _scan_end(file, layout, start, size)
    layout.scans.append(
        Scan(
            components=components,
            first_coefficient=first,
            last_coefficient=last,
            bits_left_out=left_out,
            is_refinement=layout.frame.is_progressive and payload[-1] >> 4 > 0,
            start=start,
            end=end,
        )
    )
    if not layout.frame.is_progressive:
        # Some encoders write other parameters here, which mean nothing in this process; libjpeg warns of them.
        payload = payload[:-3] + b"\0\x3f\0"
    layout.tables_and_scans += [_packed(SOS, payload), range(start, end)]
    return following


def _parsed_scan(frame: Frame | None, payload: bytes) -> tuple[tuple[int, ...], int, int, int] | None:
    """Return components, first and last coefficient and bits left out of a scan header; None where it is none."""
    if frame is None or not payload or len(payload) != 4 + 2 * payload[0]:
        return None
    components = tuple(payload[1:-3:2])
    known = {identifier for identifier, _, _ in frame.components}
    if not components or len(set(components)) != len(components) or not known.issuperset(components):
        return None
    if not frame.is_progressive:
        return components, 0, 63, 0
    first, last, bits = payload[-3:]
    is_valid = last == 0 if first == 0 else first <= last <= 63 and len(components) == 1
    is_valid &= bits & 15 <= 13 and bits >> 4 in (0, (bits & 15) + 1)
    return (components, first, last, bits & 15) if is_valid else None


def _scan_end(file: BinaryIO, layout: JpegLayout, start: int, size: int) -> tuple[int, int]:
    """Return the end of the entropy-coded data from `start` on, and the offset of the segment that follows them.

    Other markers in the data come from damage. A decoder goes on after them at the next restart marker of a sequential
    scan; of a progressive one, what lies between is left out, as a decoder would take it for segments.
    """
    following = start
    first_stray: int | None = None
    while len(layout.strays) < _MOST_STRAYS:
        found = find_marker(file, following, size, in_scan=True)
        following = size if found is None else found
        if found is None or _starts_segment(file, layout, found, size):
            break
        first_stray = found if first_stray is None else first_stray
        layout.strays.append(found)
        following = found + 2
    progressive = layout.frame is not None and layout.frame.is_progressive
    return (first_stray if progressive and first_stray is not None else following), following


def _starts_segment(file: BinaryIO, layout: JpegLayout, position: int, size: int) -> bool:
    """Return whether the marker at `position`, after entropy-coded data, starts a segment that can stand there."""
    marker, payload, end = _segment(file, position, size)
    if marker in (SOI, EOI):
        return True
    if payload is None or marker not in (*_TABLES, SOS, DNL, 0xFE, *range(APP0, APP0 + 16)):
        return False
    if marker == SOS:
        return _parsed_scan(layout.frame, payload) is not None
    file.seek(end)
    return file.read(1) == b"\xff" and _is_table(marker, payload)


def _is_table(marker: int, payload: bytes) -> bool:
    """Return whether a segment of tables has the length that its content asks for; other segments always have."""
    if marker in (DRI, DNL):
        return len(payload) == 2
    at = 0
    while marker in (DHT, DQT) and at < len(payload):
        if marker == DQT:
            at += 129 if payload[at] >> 4 else 65
        else:
            at += 17 + sum(payload[at + 1 : at + 17])
    return marker not in (DHT, DQT) or at == len(payload)


def _is_finished(layout: JpegLayout) -> bool:
    """Return whether no further scan can come: a sequential file has each component once."""
    return layout.frame is not None and not layout.frame.is_progressive and not missing_components(layout)


def _end_follows(file: BinaryIO, position: int, size: int) -> bool:
    """Return whether EOI is at `position`, or after the DNL segment there."""
    marker, _, end = _segment(file, position, size)
    return (_segment(file, end, size)[0] if marker == DNL else marker) == EOI


def _set_height_after_scan(file: BinaryIO, layout: JpegLayout, size: int) -> None:
    """Set the height that DNL states after the first scan, where the frame header has none (T.81, B.2.5)."""
    marker, payload, _ = _segment(file, layout.scans[0].end, size)
    if marker != DNL or payload is None or len(payload) != 2 or layout.frame is None:
        return
    for index, part in enumerate(layout.tables_and_scans):
        if isinstance(part, bytes) and part[1] == layout.frame.marker:
            part = part[:5] + payload + part[7:]
            layout.tables_and_scans[index] = part
            layout.frame = parsed_frame(layout.frame.marker, part[4:])
            return


def _packed(marker: int, payload: bytes) -> bytes:
    """Return a segment as it is stored."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
