"""Opens pages of TIFF files, and reads in them what their samples mean."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from realesr.errors import InputError
from realesr.images.colour import ColourSpace
from realesr.images.decoded import (
    COLOUR_CHANNELS,
    Decoded,
    ReadOptions,
    check_page,
    field,
    image_from_array,
    load_upright,
    turned_resolution,
)
from realesr.images.exif import exif_from_tiff, fields_of_page
from realesr.images.file_source import FileSource
from realesr.images.formats.by_pillow import pillow_errors


def open_tiff(path: Path, options: ReadOptions) -> Decoded:
    """Open a page of a TIFF file, the first by default.

    Raises:
        InputError: too large, there is no such page, or its samples are not whole numbers of 8 or 16 bit.
        pyvips.Error: damaged.
    """
    number = options.page or 0
    if _is_lab_of_8_bit(path, number):
        return _open_lab(path, number, options)
    with FileSource(path) as source:
        header = source.load("tiffload", unlimited=True)
        check_page(path, options.page, field(header, "n-pages") or 1)
        if number:
            header = source.load("tiffload", unlimited=True, page=number)
    orientation = field(header, "orientation") or 1
    which: dict[str, Any] = {"page": number} if number else {}
    image, source = load_upright(path, "tiffload", orientation, options, unlimited=True, **which)
    resolution = (image.xres, image.yres) if field(header, "resolution-unit") in ("in", "cm") else None
    space = _colour_space(image)
    colour = COLOUR_CHANNELS[space]
    extra = image.bands - colour
    has_alpha = extra > 0 and space != "lab"
    notices = ["Lab's alpha channel was dropped"] if extra and space == "lab" else []
    if extra > 1:
        notices.append(f"{extra - 1} channel{'s' * (extra > 2)} beyond colour and alpha dropped")
    return Decoded(
        image=image.extract_band(0, n=colour + has_alpha),
        space=space,
        has_alpha=has_alpha,
        bits=_bits_per_sample(path, image, space),
        icc=field(header, "icc-profile-data"),
        exif=exif_from_tiff(path, number),
        xmp=field(header, "xmp-data"),
        pixels_per_mm=turned_resolution(resolution, orientation),
        was_turned=orientation > 1,
        notices=tuple(notices),
        sources=(source,),
    )


def _colour_space(image: Any) -> ColourSpace:
    """Return the colour space of a pyvips image, by the interpretation that its file states and its channels."""
    if image.interpretation == "cmyk":
        return "cmyk"
    if image.interpretation in ("lab", "labs"):
        return "lab"
    return "grey" if image.bands < 3 else "rgb"


def _bits_per_sample(path: Path, image: Any, space: ColourSpace) -> Literal[8, 16]:
    """Return the depth of a file's samples by their type; libvips holds Lab of either depth as signed `short`.

    Raises:
        InputError: the samples are not whole numbers of 8 or 16 bit.
    """
    if image.format == "uchar":
        return 8
    if image.format == "ushort" or (space == "lab" and image.format == "short"):
        return 16
    raise InputError(
        f"{path} has {image.format} pixels, whose range cannot be known, expected whole numbers of 8 or 16 bit; "
        "save it as a 16-bit TIFF first"
    )


def _is_lab_of_8_bit(path: Path, page: int) -> bool:
    """Return whether page `page` of a TIFF file is CIE Lab of 8 bit in three channels."""
    try:
        values = {field.tag: list(field.data) for field in fields_of_page(path, page)}
    except (ValueError, OSError):
        return False
    photometric, depth, channels = (values.get(tag, [0, 0]) for tag in (262, 258, 277))
    return 8 in photometric and 8 in depth[:2] and 3 in channels[:2]


def _open_lab(path: Path, page: int, options: ReadOptions) -> Decoded:
    """Open an 8-bit Lab page with Pillow: libvips 8.18 refuses its own loader's header, "bad labq format"."""
    from PIL.TiffImagePlugin import TiffImageFile

    with pillow_errors(path), TiffImageFile(path) as image:
        image.seek(page)
        options.check_size(path, *image.size)
        stored = np.asarray(image)
    lab = np.empty(stored.shape, np.int16)
    lab[:, :, 0] = (stored[:, :, 0].astype(np.int32) * 32767 + 127) // 255
    lab[:, :, 1:] = stored[:, :, 1:].view(np.int8).astype(np.int16) * 256
    return Decoded(
        image=image_from_array(lab, is_lab=True), space="lab", has_alpha=False, bits=8, exif=exif_from_tiff(path, page)
    )
