"""Opens PNG files."""

import struct
from pathlib import Path
from typing import Any

from realesr.errors import InputError
from realesr.images.decoded import (
    Decoded,
    ReadOptions,
    check_memory,
    check_page,
    load_upright,
    turned_bytes,
    turned_resolution,
)
from realesr.images.formats.grey_palette import can_be_grey, grey_profile_of
from realesr.images.formats.png_chunks import PngChunks, read_png_chunks
from realesr.images.formats.png_colour import png_colour
from realesr.images.metadata.exif import orientation, pixels_per_mm

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels by colour type."""
_LARGEST_RATIO = 1032


def open_png(path: Path, options: ReadOptions) -> Decoded:
    """Open a PNG file; an interlaced one is decoded whole. Of an animation the default image is read.

    Raises:
        InputError: damaged, too large, not page 0, a PNG of Apple's own kind, or of colours that are not RGB.
        pyvips.Error: damaged.
    """
    check_page(path, options.page, 1)
    chunks = read_png_chunks(path)
    turn = orientation(chunks.exif) if chunks.exif else 1
    resolution = _resolution(chunks) or (pixels_per_mm(chunks.exif) if chunks.exif else None)
    _check_pixel_bytes(path, chunks)
    image, source = load_upright(path, "pngload", turn, options)
    _check_memory(path, image, is_interlaced=chunks.is_interlaced, is_turned=turn > 2)
    colour = png_colour(path, chunks, is_grey=chunks.has_grey_pixels)
    is_grey_palette = chunks.has_grey_pixels and image.bands > 2 and can_be_grey(colour.icc)
    is_grey = image.bands < 3 or is_grey_palette
    notices = [*chunks.notices, *colour.notices, *_animation_notice(chunks)]
    if colour.is_narrow:
        notices.append("values of video's narrow range were spread over the full range")
    if not chunks.ends:
        notices.append("the file has lost its end, behind the pixels; metadata there may be missing")
    return Decoded(
        image=_channels(image, is_grey=is_grey, is_narrow=colour.is_narrow),
        space="grey" if is_grey else "rgb",
        has_alpha=image.bands in (2, 4),
        bits=16 if chunks.depth == 16 else 8,
        icc=grey_profile_of(colour.icc) if is_grey_palette else colour.icc,
        exif=chunks.exif,
        xmp=chunks.xmp,
        pixels_per_mm=turned_resolution(resolution, turn),
        was_turned=turn > 1,
        notices=tuple(notices),
        sources=(source,),
    )


def _check_pixel_bytes(path: Path, chunks: PngChunks) -> None:
    """Raise InputError where the file cannot hold one row of pixels, or all of them where they are interlaced.

    libvips takes memory for whole rows before it reads them. Source: PNG specification, 11.2.1; zlib, "Technical
    Details" (Deflate makes at most 1,032 bytes of one).
    """
    width_px, height_px, depth, kind = struct.unpack(">IIBB", chunks.found[b"IHDR"][:10])
    rows = height_px if chunks.is_interlaced else 1
    needed = width_px * _CHANNELS.get(kind, 1) * depth * rows // (8 * _LARGEST_RATIO)
    if chunks.pixel_bytes < needed:
        raise InputError(
            f"{path} is truncated or damaged: it has {chunks.pixel_bytes:,} compressed bytes of pixels, expected at "
            f"least {needed:,} for {width_px:,} x {height_px:,} px; get a whole copy"
        )


def _check_memory(path: Path, image: Any, *, is_interlaced: bool, is_turned: bool) -> None:
    """Raise InputError where an image that is interlaced or turned does not fit into memory.

    Interlaced, 1.3 bytes per pixel were measured for grey of 8 bit, 3.5 for RGB, 5.3 with alpha, 6.2 for RGB of 16 bit;
    turned or not.
    """
    stored_bytes = image.width * image.height * image.bands * (1 if image.format == "uchar" else 2)
    needed = 1.35 * stored_bytes if is_interlaced else turned_bytes(image) if is_turned else 0
    if needed:
        what, remedy = ("interlaced PNG", "save it without interlacing") if is_interlaced else ("turned PNG", "turn it")
        check_memory(path, image.width, image.height, needed, what, f"{remedy} first")


def _channels(image: Any, *, is_grey: bool, is_narrow: bool) -> Any:
    """Return grey or RGB over the full range, then alpha, of an image as libvips decodes it."""
    colour = image.extract_band(0, n=1 if is_grey else 3)
    if is_narrow:
        unit = 1 if image.format == "uchar" else 256  # Source: ITU-T H.273, 8.3, equations 32 to 34
        full = 255 if image.format == "uchar" else 65535
        colour = ((colour - 16 * unit) * (full / (219 * unit))).rint().cast(image.format)
    return colour.bandjoin(image[image.bands - 1]) if image.bands in (2, 4) else colour


def _resolution(chunks: PngChunks) -> tuple[float, float] | None:
    """Return pixels per mm across and down from the pHYs chunk. Source: PNG specification, 11.3.4.3."""
    data = chunks.found.get(b"pHYs", b"")
    if len(data) != 9:
        return None
    across, down, unit = struct.unpack(">IIB", data)
    return (across / 1000, down / 1000) if unit == 1 and across and down else None


def _animation_notice(chunks: PngChunks) -> list[str]:
    """Return a notice where the file holds an animation. Source: PNG specification, 11.3.6.1 (acTL)."""
    frames = int.from_bytes(chunks.found.get(b"acTL", b"")[:4], "big")
    return [f"the animation of {frames} frames was left out; only the default image was read"] if frames > 1 else []
