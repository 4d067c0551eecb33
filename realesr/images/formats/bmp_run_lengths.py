"""Decodes the run lengths of BMP files.

Source of the layout: Microsoft, Windows GDI: Bitmap Compression.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.formats.bmp_header import RLE4, BmpHeader

_END_OF_ROW, _END, _STEP = 0, 1, 2


def read_run_lengths(path: Path, header: BmpHeader) -> tuple[NDArray[np.uint8], int]:
    """Return the palette indices (height, width) in the file's order of rows, and how many it skips (they are 0).

    Raises:
        InputError: the run lengths are damaged, or end before the image does.
    """
    with path.open("rb") as file:
        file.seek(header.pixels_at)
        data = file.read()
    pixels = np.zeros((header.height_px, header.width_px), np.uint8)
    at, x, y, drawn = 0, 0, 0, 0
    while y < header.height_px and at + 2 <= len(data):
        count, value = data[at : at + 2]
        at += 2
        if count == 0 and value == _END:
            return pixels, pixels.size - drawn
        if count == 0 and value == _END_OF_ROW:
            x, y = 0, y + 1
        elif count == 0 and value == _STEP:
            across, up = _step(path, data[at : at + 2])
            x, y, at = x + across, y + up, at + 2
        else:
            run, at = _run(data, at, count, value, is_four=header.compression == RLE4)
            if x + len(run) > header.width_px:
                raise InputError(
                    f"{path} is damaged: it has a run of {len(run)} px at {x} of {header.width_px} px in row {y}; "
                    "get a whole copy"
                )
            pixels[y, x : x + len(run)] = run
            x, drawn = x + len(run), drawn + len(run)
    if y < header.height_px - 1 or (y == header.height_px - 1 and x < header.width_px):
        raise InputError(f"{path} is truncated: its run lengths end in row {y} of {header.height_px}; get a whole copy")
    return pixels, pixels.size - drawn


def _step(path: Path, stored: bytes) -> tuple[int, int]:
    """Return how far a step leads, to the right and to further rows; raise InputError where it leads nowhere."""
    if len(stored) < 2 or stored == b"\0\0":
        raise InputError(f"{path} is damaged: a step of its run lengths leads nowhere; get a whole copy")
    return stored[0], stored[1]


def _run(data: bytes, at: int, count: int, value: int, *, is_four: bool) -> tuple[NDArray[Any], int]:
    """Return the indices of a run, and the position behind it.

    A run of `count` px has `value` in all, or its two halves in turn. Without a count, `value` px follow one by one,
    padded to two bytes; at the file's end they are fewer.
    """
    if count:
        stored = np.full((count + 1) // 2 if is_four else count, value, np.uint8)
    else:
        count = value
        length = (count + 1) // 2 if is_four else count
        stored = np.frombuffer(data[at : at + length], np.uint8)
        at += length + length % 2
    return np.stack((stored >> 4, stored & 15), axis=1).ravel()[:count] if is_four else stored, at
