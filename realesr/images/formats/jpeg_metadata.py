"""Reads EXIF, XMP, colour profile and resolution from the segments of a JPEG file.

Source: EXIF: CIPA DC-008, 4.7.2; XMP: XMP specification, part 3, 1.1.3; ICC profiles: ICC.1:2022, annex B.4;
resolution: ITU-T T.871, 10.1.
"""

import struct
from dataclasses import dataclass

from realesr.images.formats.jpeg_segments import APP0, APP1, APP2
from realesr.images.metadata.exif import pixels_per_mm

_EXIF = b"Exif\0"
_XMP, _EXTENDED_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_ICC = b"ICC_PROFILE\0"
_MM = {1: 25.4, 2: 10.0}


@dataclass(frozen=True, kw_only=True)
class JpegMetadata:
    """What a JPEG file says about its picture."""

    exif: bytes | None
    """EXIF block from its TIFF header on."""
    xmp: bytes | None
    icc: bytes | None
    pixels_per_mm: tuple[float, float] | None
    notices: tuple[str, ...]
    """What was left out, one line each."""


def read_metadata(segments: list[tuple[int, bytes]]) -> JpegMetadata:
    """Return the metadata in segments (marker, payload); the first block of each kind counts."""
    # The mark's sixth byte is padding, and not zero in some files.
    exif = next((data[6:] for marker, data in segments if marker == APP1 and data[:5] == _EXIF), None) or None
    packets = [data[len(_XMP) :] for marker, data in segments if marker == APP1 and data.startswith(_XMP)]
    chunks = [data[len(_ICC) :] for marker, data in segments if marker == APP2 and data.startswith(_ICC)]
    icc = _joined_profile(chunks)
    notices = []
    if chunks and icc is None:
        notices.append("the colour profile in the file is incomplete and was dropped")
    if any(marker == APP1 and data.startswith(_EXTENDED_XMP) for marker, data in segments):
        notices.append("the extended part of the XMP metadata was dropped")
    return JpegMetadata(
        exif=exif,
        xmp=packets[0] or None if packets else None,
        icc=icc,
        pixels_per_mm=(pixels_per_mm(exif) if exif else None) or _jfif_resolution(segments),
        notices=tuple(notices),
    )


def _joined_profile(chunks: list[bytes]) -> bytes | None:
    """Return the profile of chunks, each of which begins with its number, from 1, and their count; None if incomplete.

    Chunks may stand in any order. Of chunks with the same number the first counts.
    """
    numbered: dict[int, bytes] = {}
    for chunk in chunks:
        if len(chunk) > 2:
            numbered.setdefault(chunk[0], chunk[2:])
    counts = {chunk[1] for chunk in chunks if len(chunk) > 2}
    if len(counts) != 1 or sorted(numbered) != list(range(1, counts.pop() + 1)):
        return None
    return b"".join(numbered[number] for number in sorted(numbered))


def _jfif_resolution(segments: list[tuple[int, bytes]]) -> tuple[float, float] | None:
    """Return pixels per mm across and down of the JFIF segment; None where it has no unit, or the filler of 1."""
    for marker, data in segments:
        if marker == APP0 and data.startswith(b"JFIF\0") and len(data) >= 12:
            unit, across, down = struct.unpack_from(">BHH", data, 7)
            if unit in _MM and across > 1 and down > 1:
                return across / _MM[unit], down / _MM[unit]
    return None
