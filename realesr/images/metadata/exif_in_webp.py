"""Adds an EXIF block to a finished WebP file, in place.

Source of the layout: WebP Container Specification (RFC 9649, section 2): the extended format's order of chunks is VP8X,
ICCP, ANIM, image data, EXIF, XMP.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from realesr.images.metadata.inserting import insert_bytes

_HEADER_BYTES = 12
_ALPHA_FLAG, _EXIF_FLAG = 0x10, 0x08
_MOST_CHUNKS = 4096


def add_exif_to_webp(path: Path, exif: bytes, width_px: int, height_px: int) -> None:
    """Add an EXIF block to a WebP file of one image that has none yet.

    Raises:
        ValueError: the file is no WebP.
        OSError: it cannot be written.
    """
    with path.open("r+b") as file:
        head = file.read(_HEADER_BYTES + 8)
        if len(head) < _HEADER_BYTES + 8 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
            raise ValueError(f"{path} is no WebP file")
        if head[12:16] != b"VP8X":
            insert_bytes(file, _HEADER_BYTES, _extended_header(file, head[12:16], width_px, height_px))
        chunk = b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
        insert_bytes(file, _end_of_image(file), chunk)
        _set_flag(file, _EXIF_FLAG)
        length = file.seek(0, 2)
        file.seek(4)
        file.write(struct.pack("<I", length - 8))


def _extended_header(file: BinaryIO, kind: bytes, width_px: int, height_px: int) -> bytes:
    """Return the VP8X chunk for a file in the simple format, whose only chunk is of `kind`.

    Lossless data say themselves whether they have alpha, in bit 28 after their signature; lossy ones have none.
    Source: RFC 9649, 2.7.1 and 3.4.
    """
    file.seek(_HEADER_BYTES + 8)
    start = file.read(5)
    has_alpha = kind == b"VP8L" and len(start) == 5 and start[4] & 0x10
    sides = (width_px - 1).to_bytes(3, "little") + (height_px - 1).to_bytes(3, "little")
    return b"VP8X" + struct.pack("<I", 10) + bytes((_ALPHA_FLAG if has_alpha else 0, 0, 0, 0)) + sides


def _end_of_image(file: BinaryIO) -> int:
    """Return the position of the XMP chunk, or of the file's end where it has none."""
    at, end = _HEADER_BYTES, file.seek(0, 2)
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[:4] == b"XMP ":
            break
        size = int.from_bytes(head[4:], "little")
        at += 8 + size + size % 2
    return min(at, end)


def _set_flag(file: BinaryIO, flag: int) -> None:
    """Set a flag of the VP8X chunk, which begins behind the file's header."""
    file.seek(_HEADER_BYTES + 8)
    flags = file.read(1)[0] | flag
    file.seek(_HEADER_BYTES + 8)
    file.write(bytes((flags,)))
