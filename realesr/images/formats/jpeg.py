"""Opens JPEG files."""

from pathlib import Path
from typing import Any

from realesr.errors import InputError
from realesr.images.colour import ColourSpace
from realesr.images.decoded import (
    Decoded,
    ReadOptions,
    check_memory,
    check_page,
    turned_bytes,
    turned_resolution,
    turned_upright,
)
from realesr.images.formats.jpeg_damage import RowCheck
from realesr.images.formats.jpeg_metadata import read_metadata
from realesr.images.formats.jpeg_segments import Frame, JpegLayout, read_layout
from realesr.images.formats.jpeg_source import JpegSource
from realesr.images.metadata.exif import orientation

_SPACES: dict[int, ColourSpace] = {1: "grey", 3: "rgb", 4: "cmyk"}


def open_jpeg(path: Path, options: ReadOptions) -> Decoded:
    """Open a JPEG file; one with several scans, or whose orientation turns it, is decoded whole.

    libjpeg converts YCbCr to RGB and YCCK to CMYK; libvips takes CMYK for inverted, as Adobe's programs write it.

    Raises:
        InputError: too large, not page 0, of a process that is not read, or without any picture data.
        pyvips.Error: damaged.
    """
    check_page(path, options.page, 1)
    with path.open("rb") as file:
        layout = read_layout(file)
    frame = _checked_frame(path, layout, options)
    metadata = read_metadata(layout.metadata)
    turn = orientation(metadata.exif) if metadata.exif else 1
    source = JpegSource(path, layout)
    # A warning after several scans may be about padding only.
    fail_on = "warning" if layout.has_one_scan and not options.allow_damaged else "error"
    image = _upright(source, turn, fail_on)
    _check_memory(path, layout, frame, turned_bytes(image) if turn > 2 else 0)
    return Decoded(
        image=image,
        space=_SPACES[len(frame.components)],
        has_alpha=False,
        bits=8,
        icc=metadata.icc,
        exif=metadata.exif,
        xmp=metadata.xmp,
        pixels_per_mm=turned_resolution(metadata.pixels_per_mm, turn),
        was_turned=turn > 1,
        notices=(*metadata.notices, *([] if layout.has_end else ["the end marker of the JPEG file is missing"])),
        sources=(source,),
        check_rows=RowCheck(path, layout, source, allow_damaged=options.allow_damaged),
    )


def _checked_frame(path: Path, layout: JpegLayout, options: ReadOptions) -> Frame:
    """Return the frame header of a file that can be read; raise InputError for any other."""
    frame = layout.frame
    if layout.unsupported:
        raise InputError(
            f"{path} is a {layout.unsupported}, which is not read: convert it to PNG or to a baseline JPEG"
        )
    if frame is not None and frame.bits != 8:
        raise InputError(f"{path} is a JPEG of {frame.bits} bits, of which only 8 are read: convert it to PNG or TIFF")
    if frame is not None and len(frame.components) not in _SPACES:
        raise InputError(f"{path} is a JPEG of {len(frame.components)} components, expected 1, 3 or 4")
    if frame is None or not layout.scans or not frame.height_px:
        raise InputError(f"{path} is truncated or damaged: it ends before its first row; get a whole copy")
    options.check_size(path, frame.width_px, frame.height_px)
    return frame


def _check_memory(path: Path, layout: JpegLayout, frame: Frame, copy_bytes: int) -> None:
    """Raise InputError where coefficients, and a copy of `copy_bytes` that is turned, do not fit into memory.

    libjpeg keeps the coefficients of several scans, 2 bytes for each sample of each component. Rows on their way
    take another 0.5 bytes per pixel and component: 4.5 bytes per pixel in all were measured with chroma at half the
    width and height, 7.5 at full size, 2.5 for grey, 10.3 for CMYK.
    """
    if layout.has_one_scan and not copy_bytes:
        return
    pixels, needed, what, remedy = frame.width_px * frame.height_px, float(copy_bytes), "turned JPEG", "turn it"
    if not layout.has_one_scan:
        whole = max(across for _, across, _ in frame.components) * max(down for _, _, down in frame.components)
        samples = sum(across * down for _, across, down in frame.components) / max(1, whole)
        needed += pixels * (2 * samples + 0.5 * len(frame.components))
        what = "progressive JPEG" if frame.is_progressive else "JPEG in several scans"
        remedy = "save it as a baseline JPEG"
    check_memory(path, frame.width_px, frame.height_px, needed, what, f"{remedy} first")


def _upright(source: JpegSource, turn: int, fail_on: str) -> Any:
    """Return the image in `source`, turned as EXIF orientation `turn` says."""
    access = "random" if turn > 2 else "sequential"
    return turned_upright(source.load("jpegload", access=access, fail_on=fail_on, unlimited=True), turn)
