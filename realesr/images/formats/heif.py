"""Opens AVIF files with libvips, and HEIC files with pillow-heif where that is installed. Both are decoded whole."""

from pathlib import Path
from typing import Any

import numpy as np

from realesr.errors import InputError
from realesr.images.decoded import (
    Decoded,
    ReadOptions,
    check_page,
    field,
    image_from_array,
    load_upright,
    turned_resolution,
)
from realesr.images.exif import pixels_per_mm
from realesr.images.file_source import FileSource
from realesr.images.formats.by_pillow import pillow_errors


def open_avif(path: Path, options: ReadOptions) -> Decoded:
    """Open an image of an AVIF file, the first by default.

    Raises:
        InputError: too large, or there is no such image.
        pyvips.Error: damaged.
    """
    with FileSource(path) as source:
        header = source.load("heifload", unlimited=True)
    check_page(path, options.page, field(header, "n-pages") or 1)
    which: dict[str, Any] = {"page": options.page} if options.page else {}
    exif = field(header, "exif-data")
    orientation = field(header, "orientation") or 1
    image, source = load_upright(path, "heifload", orientation, options, unlimited=True, **which)
    return Decoded(
        image=image,
        space="grey" if image.bands < 3 else "rgb",
        has_alpha=image.bands in (2, 4),
        bits=8 if image.format == "uchar" else 16,
        icc=field(header, "icc-profile-data"),
        exif=exif,
        xmp=field(header, "xmp-data"),
        pixels_per_mm=turned_resolution(pixels_per_mm(exif.removeprefix(b"Exif\0\0")) if exif else None, orientation),
        was_turned=True,
        sources=(source,),
    )


def open_heic(path: Path, options: ReadOptions) -> Decoded:
    """Open an image of a HEIC file, the first by default; the decoder turns it, and returns 10 and 12 bit as 16.

    Raises:
        InputError: pillow-heif is missing, the file is damaged, too large, or has no such image.
    """
    try:
        import pillow_heif
    except ImportError:
        raise InputError(f"{path} is HEIC, which needs one more package: pip install pillow-heif") from None

    with pillow_errors(path):
        file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
        check_page(path, options.page, len(file))
        image = file[options.page or 0]
        options.check_size(path, *image.size)
        array = np.asarray(image)
    facts: dict[str, Any] = dict(image.info)
    stacked = array[:, :, None] if array.ndim == 2 else array
    return Decoded(
        image=image_from_array(stacked),
        space="grey" if stacked.shape[2] < 3 else "rgb",
        has_alpha=stacked.shape[2] in (2, 4),
        bits=8 if array.itemsize == 1 else 16,
        icc=facts.get("icc_profile"),
        exif=facts.get("exif"),
        xmp=facts.get("xmp"),
        was_turned=True,
    )
