"""Opens BMP files, which are decoded whole."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.decoded import Decoded, ReadOptions, check_memory, check_page, image_from_array
from realesr.images.formats.bmp_colour import bmp_colour
from realesr.images.formats.bmp_header import RLE4, RLE8, BmpHeader, read_bmp_header
from realesr.images.formats.bmp_pixels import over_full_range, read_pixels
from realesr.images.formats.grey_palette import can_be_grey, grey_profile_of, is_grey_table


def open_bmp(path: Path, options: ReadOptions) -> Decoded:
    """Open a BMP file. It has alpha where a mask says so, and is 16 bit where a mask has more than 8 bits.

    Raises:
        InputError: damaged, truncated, too large, not page 0, or of a kind that is not read.
    """
    check_page(path, options.page, 1)
    header = read_bmp_header(path)
    options.check_size(path, header.width_px, header.height_px)
    needed = header.width_px * header.height_px * _px_bytes(header)
    if header.compression in (RLE4, RLE8):
        needed += path.stat().st_size
    check_memory(path, header.width_px, header.height_px, needed, "BMP", "save it as PNG or TIFF first")
    is_grey = header.pixel_bits <= 8 and is_grey_table(header.palette)
    icc, notices = bmp_colour(path, header, is_grey=is_grey)
    if is_grey and can_be_grey(icc):
        icc = grey_profile_of(icc)
    else:
        is_grey = False
    pixels, skipped = read_pixels(path, header)
    if header.pixel_bits <= 8:
        array = _through_palette(path, pixels, header, is_grey=is_grey)
    else:
        array = over_full_range(pixels, header)
    if skipped:
        notices += (f"the file skips {skipped} px, which got the palette's first colour",)
    return Decoded(
        image=image_from_array(array),
        space="grey" if is_grey else "rgb",
        has_alpha=len(header.masks) == 4,
        bits=header.bits,
        icc=icc,
        pixels_per_mm=header.pixels_per_mm,
        notices=notices,
    )


def _px_bytes(header: BmpHeader) -> float:
    """Return the memory that decoding takes for a pixel.

    Measured: 4.1 with a palette, 6.1 for plain 24 bit, 9 for 16 bit, 16.4 for 32 bit, 19.1 for 24 bit with other masks;
    26 where masks have more than 8 bits. Alpha adds a channel.
    """
    if header.pixel_bits <= 8:
        return 5
    if header.bits == 16:
        return 28
    if header.pixel_bits == 24:
        return 6.5 if header.masks == (0xFF0000, 0xFF00, 0xFF) else 20
    return 10 if header.pixel_bits == 16 else 18


def _through_palette(path: Path, indices: NDArray[Any], header: BmpHeader, *, is_grey: bool) -> NDArray[Any]:
    """Return the colours (H, W, 1 or 3) of palette indices; raise InputError where one has no entry."""
    palette = np.frombuffer(header.palette, np.uint8).reshape(-1, 3)[:, ::-1]
    highest = int(indices.max())
    if highest >= len(palette):
        raise InputError(
            f"{path} is damaged: a pixel has entry {highest} of a palette of {len(palette)}; get a whole copy"
        )
    colours: NDArray[Any] = palette[:, :1][indices] if is_grey else palette[indices]
    return colours
