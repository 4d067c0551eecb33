"""Makes the parts of JPEG and PNG files that hold EXIF and XMP, which libvips does not write, or not as they are.

libvips rewrites EXIF through libexif, which drops the fields that it does not know and moves the others. It writes XMP
to PNG as zTXt, where other programs do not look, and leaves it out of JPEG above 60,000 bytes.
"""

import struct
import zlib

MOST_EXIF_BYTES_IN_JPEG = 65_527
"""One APP1 segment, less its length and the mark. Source: ITU-T T.81, B.1.1.4; CIPA DC-008 (Exif 3.0), 4.5.4."""

MOST_XMP_BYTES_IN_JPEG = 65_502
"""One APP1 segment, less the head of XMP. Source: XMP specification, part 3, 1.1.3."""


def jfif_segment(pixels_per_mm: tuple[float, float]) -> bytes:
    """Return a JFIF segment that states a resolution; nothing where that is no whole number of pixels per inch.

    Source: ITU-T T.871, 10.1.
    """
    per_inch = [value * 25.4 for value in pixels_per_mm]
    whole = [round(value) for value in per_inch]
    if not all(0 < a < 2**16 and abs(a - b) <= 1e-3 * b for a, b in zip(whole, per_inch, strict=True)):
        return b""
    return b"\xff\xe0" + struct.pack(">H5sHBHHBB", 16, b"JFIF\0", 0x0102, 1, *whole, 0, 0)


def exif_segment(exif: bytes) -> bytes:
    """Return an EXIF block as a segment of JPEG; nothing where it is too long for one.

    Source: CIPA DC-008 (Exif 3.0), 4.5.4.
    """
    if len(exif) > MOST_EXIF_BYTES_IN_JPEG:
        return b""
    return b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif


def xmp_segment(xmp: bytes) -> bytes:
    """Return XMP as a segment of JPEG; nothing where it is too long for one.

    Source: XMP specification, part 3, 1.1.3.
    """
    if len(xmp) > MOST_XMP_BYTES_IN_JPEG:
        return b""
    head = b"http://ns.adobe.com/xap/1.0/\0"
    return b"\xff\xe1" + struct.pack(">H", 2 + len(head) + len(xmp)) + head + xmp


def exif_chunk(exif: bytes) -> bytes:
    """Return an EXIF block as a chunk of PNG. Source: PNG specification, third edition, 11.3.4.5."""
    return _chunk(b"eXIf", exif)


def xmp_chunk(xmp: bytes) -> bytes:
    """Return XMP as an uncompressed iTXt chunk of PNG.

    Source: PNG specification, third edition, 11.3.3.4; XMP specification, part 3, 1.1.5.
    """
    return _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
