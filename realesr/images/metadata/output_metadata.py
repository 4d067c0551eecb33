"""Makes the facts of an output from those of the input, and corrects the metadata that the new file makes false."""

from dataclasses import replace

from realesr.images.colour import is_srgb
from realesr.images.info import ImageInfo, OutputFormat
from realesr.images.metadata.chunks import MOST_EXIF_BYTES_IN_JPEG
from realesr.images.metadata.exif import repacked, with_resolution
from realesr.images.metadata.exif_correction import exif_enlarged
from realesr.images.metadata.xmp import xmp_resized


def stripped_info(info: ImageInfo) -> ImageInfo:
    """Return the facts of an image without metadata: only a profile that is not sRGB stays, which its colours need."""
    icc = None if info.icc is None or is_srgb(info.icc) else info.icc
    return replace(info, exif=None, xmp=None, pixels_per_mm=None, icc=icc)


def enlarged_info(
    info: ImageInfo,
    width_px: int,
    height_px: int,
    fmt: OutputFormat,
    *,
    pixels_per_mm: tuple[float, float] | None = None,
) -> tuple[ImageInfo, tuple[str, ...]]:
    """Return the facts of an enlarged image in a file of format `fmt`, and notices of metadata that were left out.

    Everything in EXIF and XMP that stays true stays as it is, byte for byte.

    Args:
        info: facts of the input, as its reader has them.
        width_px: width of the new image. Likewise `height_px`.
        height_px: its height.
        fmt: format of the new file.
        pixels_per_mm: resolution across and down that the new file shall state; None keeps the old one.
    """
    old, new = (info.width_px, info.height_px), (width_px, height_px)
    exif, xmp = info.exif, info.xmp
    notices: tuple[str, ...] = ()
    if exif is not None:
        exif, notices = exif_enlarged(exif, old, new)
    if exif is not None and pixels_per_mm is not None:
        exif = with_resolution(exif, pixels_per_mm)
    if exif is not None and fmt == "jpeg" and len(exif) > MOST_EXIF_BYTES_IN_JPEG:
        exif = repacked(exif)
    if xmp is not None:
        xmp, more = xmp_resized(xmp, old, new, f"image/{fmt}", has_new_resolution=pixels_per_mm is not None)
        notices += more
    enlarged = replace(info, width_px=width_px, height_px=height_px, exif=exif, xmp=xmp)
    return replace(enlarged, pixels_per_mm=pixels_per_mm or info.pixels_per_mm), notices
