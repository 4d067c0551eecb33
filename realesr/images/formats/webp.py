"""Opens WebP files, which are decoded whole."""

from pathlib import Path

from realesr.images.decoded import Decoded, ReadOptions, check_page, field, load_upright, turned_resolution
from realesr.images.exif import pixels_per_mm
from realesr.images.file_source import FileSource


def open_webp(path: Path, options: ReadOptions) -> Decoded:
    """Open a frame of a WebP file, the first by default.

    Raises:
        InputError: too large, or there is no such frame.
        pyvips.Error: damaged.
    """
    with FileSource(path) as source:
        header = source.load("webpload")
    check_page(path, options.page, field(header, "n-pages") or 1)
    exif = field(header, "exif-data")
    orientation = field(header, "orientation") or 1
    image, source = load_upright(
        path, "webpload", orientation, options, **({"page": options.page} if options.page else {})
    )
    return Decoded(
        image=image,
        space="rgb",
        has_alpha=image.bands == 4,
        bits=8,
        icc=field(header, "icc-profile-data"),
        exif=exif,
        xmp=field(header, "xmp-data"),
        pixels_per_mm=turned_resolution(pixels_per_mm(exif.removeprefix(b"Exif\0\0")) if exif else None, orientation),
        was_turned=orientation > 1,
        sources=(source,),
    )
