"""Reads the headers of BMP files.

Source of the layout: Microsoft, Windows GDI: BITMAPFILEHEADER, BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV4HEADER,
BITMAPV5HEADER; headers of 52 and 56 bytes are Adobe's, of 16 and 64 bytes those of OS/2 2.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realesr.errors import InputError

RGB, RLE8, RLE4, BITFIELDS, ALPHA_BITFIELDS = 0, 1, 2, 3, 6
"""Compressions that are read."""

FILE_HEADER_BYTES = 14
_MOST_HEADER_BYTES = 124
_CORE_BYTES, _OS2_BYTES = 12, (16, 64)
_HEADER_BYTES = (_CORE_BYTES, 16, 40, 52, 56, 64, 108, _MOST_HEADER_BYTES)
_UNREAD = {4: "JPEG", 5: "PNG", 11: "CMYK", 12: "CMYK with run lengths", 13: "CMYK with run lengths"}
_UNREAD_OS2 = {3: "Huffman's code", 4: "run lengths of 24-bit pixels"}
_DEFAULT_MASKS = {16: (0x7C00, 0x3E0, 0x1F), 24: (0xFF0000, 0xFF00, 0xFF), 32: (0xFF0000, 0xFF00, 0xFF)}


@dataclass(frozen=True, kw_only=True)
class BmpHeader:
    """Facts about a file."""

    width_px: int
    height_px: int
    is_top_down: bool
    """Whether the first row in the file is the top one; else the bottom one is."""
    pixel_bits: int
    """1, 2, 4 or 8 bits of a palette's index; 16, 24 or 32 bits of colour."""
    compression: int
    masks: tuple[int, ...] = ()
    """Bits of a pixel that are red, green and blue, then alpha where a mask is there; none with a palette."""
    palette: bytes = b""
    """Blue, green and red of each entry."""
    pixels_at: int
    """Position of the pixels in the file."""
    pixels_per_mm: tuple[float, float] | None = None
    dib: bytes
    """The header after the file's own, as it is stored, for what it says about colour."""

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row that is not compressed: padded to four."""
        return (self.width_px * self.pixel_bits + 31) // 32 * 4

    @property
    def bits(self) -> Literal[8, 16]:
        """Return the depth that holds every channel."""
        return 16 if any(mask.bit_count() > 8 for mask in self.masks) else 8


def read_bmp_header(path: Path) -> BmpHeader:
    """Read the headers, masks and palette of a file.

    Raises:
        InputError: damaged, or of a kind that is not read.
    """
    with path.open("rb") as file:
        head = file.read(FILE_HEADER_BYTES + _MOST_HEADER_BYTES + 1024)
    if head.startswith(b"BA"):
        raise InputError(f"{path} is an array of OS/2 bitmaps, which is not read: extract one and save it as BMP")
    dib_bytes = int.from_bytes(head[14:18], "little")
    dib = head[FILE_HEADER_BYTES:][:dib_bytes]
    if dib_bytes not in _HEADER_BYTES or len(dib) < dib_bytes:
        raise _damaged(path, f"its header has {dib_bytes} bytes", f"one of {', '.join(map(str, _HEADER_BYTES))}")
    width, height, bits, compression, across, down, used = _dib_fields(dib)
    unread = _UNREAD_OS2 if dib_bytes in _OS2_BYTES else _UNREAD
    if compression in unread:
        raise InputError(f"{path} is a BMP that holds {unread[compression]}, which is not read: save it as plain BMP")
    if not 0 < width < 2**31 or not 0 < abs(height) < 2**31:
        raise _damaged(path, f"it states {width} x {abs(height)} px", "at least 1 x 1")
    _check_form(path, bits, compression)
    masks_at = 40 if compression in (BITFIELDS, ALPHA_BITFIELDS) else 0
    after_dib = FILE_HEADER_BYTES + dib_bytes
    if masks_at and dib_bytes == 40:
        after_dib += 12 if compression == BITFIELDS else 16
    pixels_at = int.from_bytes(head[10:14], "little")
    palette = _palette(head[after_dib : pixels_at or None], bits, used, 3 if dib_bytes == _CORE_BYTES else 4)
    return BmpHeader(
        width_px=width,
        height_px=abs(height),
        is_top_down=height < 0,
        pixel_bits=bits,
        compression=compression,
        masks=_masks(path, head[FILE_HEADER_BYTES:after_dib], bits, masks_at),
        palette=palette,
        pixels_at=pixels_at or after_dib + len(palette) // 3 * (3 if dib_bytes == _CORE_BYTES else 4),
        pixels_per_mm=(across / 1000, down / 1000) if across > 0 and down > 0 else None,
        dib=dib,
    )


def _damaged(path: Path, got: str, expected: str) -> InputError:
    """Return the error of a header that makes no sense."""
    return InputError(f"{path} is damaged: {got}, expected {expected}; get a whole copy")


def _dib_fields(dib: bytes) -> tuple[int, int, int, int, int, int, int]:
    """Return width, height, bits of a pixel, compression, pixels per metre across and down, and palette entries."""
    if len(dib) == _CORE_BYTES:
        width, height, _, bits = struct.unpack("<4x4H", dib)
        return width, height, bits, RGB, 0, 0, 0
    width, height, _, bits, compression, _, across, down, used = struct.unpack(
        "<4xiiHHIIiiI", dib[:36].ljust(36, b"\0")
    )
    return width, height, bits, compression, across, down, used


def _check_form(path: Path, bits: int, compression: int) -> None:
    """Raise InputError where bits of a pixel and compression do not go together."""
    fitting = {
        RGB: (1, 2, 4, 8, 16, 24, 32),
        RLE8: (8,),
        RLE4: (4,),
        BITFIELDS: (16, 24, 32),
        ALPHA_BITFIELDS: (16, 24, 32),
    }
    if bits not in fitting.get(compression, ()):
        expected = " or ".join(map(str, fitting.get(compression, ()))) or "compression 0 to 3 or 6"
        raise _damaged(path, f"it states {bits} bits a pixel with compression {compression}", expected)


def _masks(path: Path, dib: bytes, bits: int, masks_at: int) -> tuple[int, ...]:
    """Return the masks of red, green, blue and, where there is one, alpha; 32 bits without masks have no alpha."""
    if bits <= 8:
        return ()
    if not masks_at:
        return _DEFAULT_MASKS[bits]
    stored = dib[masks_at : masks_at + 16]
    masks = struct.unpack(f"<{len(stored) // 4}I", stored[: len(stored) // 4 * 4])
    masks = masks if len(masks) == 4 and masks[3] else masks[:3]
    together = 0
    for mask in masks:
        run = mask // (mask & -mask) if mask else 0
        if not mask or run & (run + 1) or mask & together or mask >> bits:
            raise _damaged(path, "its masks are " + ", ".join(f"{mask:#x}" for mask in masks), "a run of bits for each")
        together |= mask
    if len(masks) < 3:
        raise _damaged(path, f"it has {len(masks)} masks", "red, green and blue")
    return masks


def _palette(stored: bytes, bits: int, used: int, entry_bytes: int) -> bytes:
    """Return blue, green and red of the entries that a palette has: all that bits of a pixel can name, unless fewer."""
    if bits > 8:
        return b""
    entries = min(used or 1 << bits, 1 << bits, len(stored) // entry_bytes)
    return b"".join(stored[i * entry_bytes : i * entry_bytes + 3] for i in range(entries))
