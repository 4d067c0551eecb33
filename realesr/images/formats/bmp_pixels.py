"""Decodes the pixels of BMP files.

Source of the layout: Microsoft, Windows GDI: Bitmap Storage, Bitmap Compression.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.formats.bmp_header import RLE4, RLE8, BmpHeader
from realesr.images.formats.bmp_run_lengths import read_run_lengths


def read_pixels(path: Path, header: BmpHeader) -> tuple[NDArray[Any], int]:
    """Return the pixels as stored, the top row first, and how many of them the file skips (they are 0).

    Returns:
        (height, width) uint8 of palette indices, uint16 or uint32 of colour; or (height, width, 3) uint8 of blue,
        green and red.

    Raises:
        InputError: rows are missing, or run lengths are damaged.
    """
    skipped = 0
    if header.compression in (RLE4, RLE8):
        pixels, skipped = read_run_lengths(path, header)
    else:
        pixels = _unpacked(_read_rows(path, header), header)
    return (pixels if header.is_top_down else pixels[::-1]), skipped


def _read_rows(path: Path, header: BmpHeader) -> NDArray[np.uint8]:
    """Return the stored rows, (height, bytes); raise InputError where some are missing."""
    length = header.row_bytes * header.height_px
    # The padding of the last row is often left out.
    needed = length - header.row_bytes + (header.width_px * header.pixel_bits + 7) // 8
    there = path.stat().st_size - header.pixels_at
    if there < needed:
        raise InputError(
            f"{path} is truncated: it has {max(0, there // header.row_bytes)} of {header.height_px} rows; "
            "get a whole copy"
        )
    with path.open("rb") as file:
        stored: NDArray[np.uint8] = np.fromfile(file, np.uint8, min(length, there), offset=header.pixels_at)
    if stored.size < needed:
        raise InputError(f"{path} became shorter while it was read; get a whole copy")
    if stored.size < length:
        stored = np.pad(stored, (0, length - stored.size))
    return stored.reshape(header.height_px, header.row_bytes)


def _unpacked(rows: NDArray[np.uint8], header: BmpHeader) -> NDArray[Any]:
    """Return stored rows as pixels, in the file's order of rows."""
    bits, width = header.pixel_bits, header.width_px
    if bits == 1:
        return np.unpackbits(rows, axis=1, count=width)
    if bits in (2, 4):
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        parts = (rows[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)
        return parts.reshape(len(rows), -1)[:, :width]
    if bits == 24:
        return rows[:, : 3 * width].reshape(len(rows), width, 3)
    return rows.view({8: "u1", 16: "<u2", 32: "<u4"}[bits])[:, :width]


def over_full_range(pixels: NDArray[Any], header: BmpHeader) -> NDArray[Any]:
    """Return pixels of 16, 24 or 32 bits as (H, W, channels) uint8 or uint16: red, green, blue, then alpha."""
    if pixels.ndim == 3 and header.masks == (0xFF0000, 0xFF00, 0xFF):
        return pixels[:, :, ::-1]
    if pixels.ndim == 3:
        pixels = pixels.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)
    full = (1 << header.bits) - 1
    result = np.empty((*pixels.shape, len(header.masks)), f"uint{header.bits}")
    for channel, mask in enumerate(header.masks):
        unit = mask & -mask
        levels = mask // unit
        if levels > 65535:
            values = (pixels.astype(np.float64) // unit) % (levels + 1)
            result[:, :, channel] = np.rint(values * full / levels)
        else:
            table = np.rint(np.arange(levels + 1) * full / levels).astype(result.dtype)
            result[:, :, channel] = table[(pixels & mask) // unit]
    return result
