"""Opens PNG files."""

import struct
from pathlib import Path

from realesr.images.decoded import Decoded, ReadOptions, check_page, field, load_upright, turned_resolution
from realesr.images.exif import pixels_per_mm
from realesr.images.file_source import FileSource


def open_png(path: Path, options: ReadOptions) -> Decoded:
    """Open a PNG file; an interlaced one is decoded whole.

    Raises:
        InputError: too large, or not page 0.
        pyvips.Error: damaged.
    """
    check_page(path, options.page, 1)
    with FileSource(path) as source:
        header = source.load("pngload")
    exif = field(header, "exif-data")
    orientation = field(header, "orientation") or 1
    resolution = _png_resolution(path) or (pixels_per_mm(exif.removeprefix(b"Exif\0\0")) if exif else None)
    image, source = load_upright(path, "pngload", orientation, options)
    return Decoded(
        image=image,
        space="grey" if image.bands < 3 else "rgb",
        has_alpha=image.bands in (2, 4),
        bits=8 if image.format == "uchar" else 16,
        icc=field(header, "icc-profile-data"),
        exif=exif,
        xmp=field(header, "xmp-data"),
        pixels_per_mm=turned_resolution(resolution, orientation),
        was_turned=orientation > 1,
        sources=(source,),
    )


def _png_resolution(path: Path) -> tuple[float, float] | None:
    """Return pixels per mm from the pHYs chunk. Source: PNG specification, 11.3.4.3."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            if head[4:] == b"pHYs":
                across, down, unit = struct.unpack(">IIB", file.read(9).ljust(9, b"\0"))
                return (across / 1000, down / 1000) if unit == 1 and across and down else None
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return None
