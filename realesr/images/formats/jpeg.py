"""Opens JPEG files."""

from pathlib import Path

from realesr.images.decoded import Decoded, ReadOptions, check_page, field, load_upright, turned_resolution
from realesr.images.file_source import FileSource


def open_jpeg(path: Path, options: ReadOptions) -> Decoded:
    """Open a JPEG file; a progressive one is decoded whole.

    Raises:
        InputError: too large, or not page 0.
        pyvips.Error: damaged.
    """
    check_page(path, options.page, 1)
    with FileSource(path) as source:
        image = source.load("jpegload")
    orientation = field(image, "orientation") or 1
    resolution = (image.xres, image.yres) if field(image, "resolution-unit") in ("in", "cm") else None
    facts = {name: field(image, f"{name}-data") for name in ("icc-profile", "exif", "xmp")}
    space, bands = ("cmyk", 4) if image.interpretation == "cmyk" else ("grey", 1) if image.bands == 1 else ("rgb", 3)
    upright, source = load_upright(path, "jpegload", orientation, options)
    return Decoded(
        image=upright.extract_band(0, n=bands),
        space=space,
        has_alpha=False,
        bits=8,
        icc=facts["icc-profile"],
        exif=facts["exif"],
        xmp=facts["xmp"],
        pixels_per_mm=turned_resolution(resolution, orientation),
        was_turned=orientation > 1,
        sources=(source,),
    )
