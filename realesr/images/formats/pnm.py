"""Opens PBM, PGM and PPM files, which are decoded whole."""

import re
from pathlib import Path

import numpy as np

from realesr.errors import InputError
from realesr.images.decoded import Decoded, ReadOptions, check_page, image_from_array
from realesr.images.formats.by_pillow import pillow_errors


def open_pnm(path: Path, options: ReadOptions) -> Decoded:
    """Open a PBM, PGM or PPM file, 16 bit included.

    Raises:
        InputError: damaged, truncated, too large, or not page 0.
    """
    from PIL.PpmImagePlugin import PpmImageFile

    check_page(path, options.page, 1)
    with path.open("rb") as file:
        deep = _deep_header(file.read(4096))
    if deep is not None:
        return _open_deep(path, deep, options)
    with pillow_errors(path), PpmImageFile(path) as image:
        options.check_size(path, *image.size)
        array = np.asarray(image.convert("L") if image.mode == "1" else image)
    stacked = array[:, :, None] if array.ndim == 2 else array
    return Decoded(
        image=image_from_array(stacked), space="grey" if stacked.shape[2] == 1 else "rgb", has_alpha=False, bits=8
    )


def _deep_header(head: bytes) -> tuple[int, int, int, int, int] | None:
    """Return channels, width, height, largest value and offset of the pixels of a binary 16-bit PPM or PGM; else None.

    Source: netpbm's ppm(5) and pgm(5). Pillow reads 16-bit PPM as 8 bit.
    """
    gap = rb"(?:\s|#[^\n]*\n)+"
    found = re.match(rb"P([56])" + gap + rb"(\d+)" + gap + rb"(\d+)" + gap + rb"(\d+)\s", head)
    if found is None or int(found[4]) <= 255:
        return None
    return 1 if found[1] == b"5" else 3, int(found[2]), int(found[3]), int(found[4]), found.end()


def _open_deep(path: Path, header: tuple[int, int, int, int, int], options: ReadOptions) -> Decoded:
    """Read the pixels of a 16-bit PPM or PGM, scaled to the full range of uint16."""
    channels, width, height, largest, offset = header
    if largest > 65535 or not width or not height:
        raise InputError(f"{path} is damaged: {width} x {height} px of values up to {largest}; get a whole copy")
    options.check_size(path, width, height)
    with path.open("rb") as file:
        values = np.fromfile(file, ">u2", width * height * channels, offset=offset)
    if values.size < width * height * channels:
        raise InputError(f"{path} is truncated: {values.size} of {width * height * channels} values; get a whole copy")
    scaled = (values.astype(np.uint32) * 65535 + largest // 2) // largest
    array = scaled.astype(np.uint16).reshape(height, width, channels)
    return Decoded(image=image_from_array(array), space="grey" if channels == 1 else "rgb", has_alpha=False, bits=16)
