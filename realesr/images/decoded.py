"""Describes an opened image whose samples are understood, and has what the openers of all formats share."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.colour import ColourSpace
from realesr.images.file_source import FileSource
from realesr.images.libvips import pyvips
from realesr.machine.memory import free_bytes

COLOUR_CHANNELS: dict[ColourSpace, int] = {"grey": 1, "rgb": 3, "cmyk": 4, "lab": 3}


MAX_PIXELS = 1_000_000_000
"""Largest input in pixels by default. An assumption: above cameras and scanners, below decompression bombs."""

MEMORY_SHARE = 0.8
"""Part of the free memory that decoding one image may take: the network and the encoder need some as well."""
_DISC_THRESHOLD_BYTES = 100 << 20
"""Size from which on libvips keeps a decoded image in a temporary file, unless VIPS_DISC_THRESHOLD says otherwise."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of opening a file."""

    page: int | None = None
    """Page, frame or image of a file with several, from 0; None is the one that the file itself presents."""
    max_pixels: int = MAX_PIXELS
    """Largest width x height."""
    allow_damaged: bool = False
    """Whether rows that the file has lost may be made up, with a notice."""

    def check_size(self, path: Path, width_px: int, height_px: int) -> None:
        """Raise InputError where an image has more pixels than may be read; call it before one is decoded."""
        if width_px * height_px > self.max_pixels:
            raise InputError(
                f"{path} has {width_px} x {height_px} = {width_px * height_px:,} px, "
                f"expected at most {self.max_pixels:,}",
                option="max_pixels",
            )


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An upright image, not read yet, whose samples mean what these facts say; its file was asked, never its values."""

    image: Any
    """pyvips image: the channels of `space`, then alpha. uchar or ushort over the type's full range; Lab is labs."""
    space: ColourSpace
    has_alpha: bool
    """Whether there is a last channel of straight alpha."""
    bits: Literal[8, 16]
    """Depth that the output shall keep."""
    icc: bytes | None = None
    exif: bytes | None = None
    """EXIF block from its TIFF header on, as the file has it."""
    xmp: bytes | None = None
    pixels_per_mm: tuple[float, float] | None = None
    """Resolution across and down of the upright image, where the file states one."""
    was_turned: bool = False
    """Whether an orientation that the metadata state was applied, and must be reset there."""
    notices: tuple[str, ...] = ()
    """What was converted or left out, one line each for the user."""
    sources: tuple[FileSource, ...] = ()
    """Files that the image reads from; whoever has done with the image closes them."""
    check_rows: Callable[[bool, Exception | None], str | None] | None = None
    """Called within `own_messages` after each read of rows, with whether the last was among them, and libvips' error
    or None. It returns a notice or None, and raises InputError where the file has lost rows that were read."""


def check_memory(path: Path, width_px: int, height_px: int, needed_bytes: float, what: str, remedy: str) -> None:
    """Raise InputError where decoding an image whole takes more than its share of the free memory.

    Call it before a pixel is decoded. The openers' bytes per pixel are the growth of the peak of resident memory from
    4 to 16 MP of soft shapes, rounded up; measured on 2026-11-27 with libvips 8.18.7, Pillow 13.0 and pillow-heif 1.8.

    Args:
        path: the file.
        width_px: width of the image.
        height_px: height of the image.
        needed_bytes: estimate of what decoding takes.
        what: what is decoded whole, as "progressive JPEG".
        remedy: what the user can do besides freeing memory, as "save it as a baseline JPEG first".
    """
    free = free_bytes()
    if needed_bytes > MEMORY_SHARE * free:
        raise InputError(
            f"{path}: {width_px:,} x {height_px:,} px of {what} are decoded whole, which takes about "
            f"{_amount(needed_bytes)}, and {_amount(free)} are free, of which {MEMORY_SHARE:.0%} may be used; "
            f"free some, or {remedy}"
        ) from MemoryError()  # the reason is not the file alone: it may be read another time


def _amount(size_bytes: float) -> str:
    """Return a size in GB, or in MB below one."""
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"


def turned_bytes(image: Any) -> int:
    """Return the memory that libvips takes for a copy of an image in order to turn it; 0 where a file holds the copy.

    Measured with libvips 8.18.7: pages of that file count as resident, but the system can take them back.
    """
    size: int = image.width * image.height * image.bands * (1 if image.format == "uchar" else 2)
    stated = re.match(r"\s*(\d+)\s*([kKmMgG]?)", os.environ.get("VIPS_DISC_THRESHOLD", ""))
    threshold = _DISC_THRESHOLD_BYTES
    if stated:
        threshold = int(stated[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[stated[2].lower()]
    return size if size <= threshold else 0


def field(image: Any, name: str) -> Any:
    """Return a metadata field of a pyvips image, or None where it has none of this name."""
    return image.get(name) if image.get_typeof(name) else None


def load_upright(
    path: Path, loader: str, orientation: int, options: ReadOptions, **loader_options: Any
) -> tuple[Any, FileSource]:
    """Open a file with a loader of libvips, and turn the image as its EXIF orientation, 1 to 8, says.

    Images that are turned (3 to 8) are decoded whole; libvips keeps those above 100 MB in a temporary file.

    Raises:
        pyvips.Error: the file is damaged.
    """
    source = FileSource(path)
    image = source.load(loader, access="random" if orientation > 2 else "sequential", **loader_options)
    options.check_size(path, image.width, image.height)
    return turned_upright(image, orientation), source


def turned_upright(image: Any, orientation: int) -> Any:
    """Return a pyvips image turned as EXIF orientation `orientation`, 1 to 8, says."""
    if orientation == 1:
        return image
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return image.autorot()


def turned_resolution(pixels_per_mm: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """Return the resolution across and down of an image that was turned as EXIF orientation `orientation` says."""
    return pixels_per_mm[::-1] if pixels_per_mm is not None and orientation > 4 else pixels_per_mm


def image_from_array(array: NDArray[Any], *, is_lab: bool = False) -> Any:
    """Return an array (H, W, C) of uint8, uint16 or, for Lab, int16 as a pyvips image."""
    height, width, channels = array.shape
    form = {"uint8": "uchar", "uint16": "ushort", "int16": "short"}[str(array.dtype)]
    grey, colour = {"uchar": ("b-w", "srgb"), "ushort": ("grey16", "rgb16"), "short": ("labs", "labs")}[form]
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(array), width, height, channels, form)
    return image.copy(interpretation="labs" if is_lab else grey if channels < 3 else colour)


def check_page(path: Path, page: int | None, pages: int) -> None:
    """Raise InputError where a file of `pages` pages has no page `page`, counted from 0; None is always there."""
    if page is not None and not 0 <= page < pages:
        expected = "only page 0" if pages == 1 else f"{pages} pages, 0 to {pages - 1}"
        raise InputError(f"{path} has no page {page}: it has {expected}")
