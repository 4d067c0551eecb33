"""Opens a file as its codec's image, upright, with what the file says about it; no pixel is decoded yet.

libvips decodes JPEG, PNG, TIFF, WebP, AVIF and GIF row by row, on demand. Decoded whole, because the codec
or the order of the rows leaves no choice: progressive JPEG, interlaced PNG, WebP, AVIF, BMP, PPM, HEIC, and files whose
EXIF orientation turns them (3 to 8; above 100 MB libvips keeps such an image in a temporary file).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from realesr.errors import InputError
from realesr.images.exif import exif_from_tiff, pixels_per_mm
from realesr.images.kinds import ImageKind
from realesr.images.libvips import path_for_vips, pyvips, vips_message
from realesr.images.pillow_decoding import (
    WholeImage,
    check_page,
    is_lab_of_8_bit,
    read_bmp,
    read_heic,
    read_lab_tiff,
    read_ppm,
)

_PAGED = ("tiff", "gif", "webp", "avif", "heic")
_LOADERS = {
    "jpeg": "jpegload",
    "png": "pngload",
    "tiff": "tiffload",
    "webp": "webpload",
    "avif": "heifload",
    "gif": "gifload",
}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An upright image, with what its file says about it."""

    image: Any
    """A pyvips image that has not been read yet, in the file's own colour space and depth."""
    kind: ImageKind
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    pixels_per_mm: tuple[float, float] | None


def decode(path: Path, kind: ImageKind, page: int, max_pixels: int) -> Decoded:
    """Open the file at `path`, which holds an image of kind `kind`.

    Raises:
        InputError: the file is damaged, too large, has no such page, or is HEIC and pillow-heif is missing.
    """

    def check_size(width: int, height: int) -> None:
        if width * height > max_pixels:
            raise InputError(
                f"{path} has {width} x {height} = {width * height:,} px, expected at most {max_pixels:,}",
                option="max_pixels",
            )

    if kind not in _PAGED:
        check_page(path, page, 1)
    if kind == "bmp":
        return _from_whole(read_bmp(path, check_size), kind)
    if kind == "ppm":
        return _from_whole(read_ppm(path, check_size), kind)
    if kind == "heic":
        return _from_whole(read_heic(path, page, check_size), kind)
    if kind == "tiff" and is_lab_of_8_bit(path, page):
        return _from_whole(read_lab_tiff(path, page, check_size), kind)
    try:
        return _decode_by_vips(path, kind, page, check_size)
    except pyvips.Error as error:
        raise InputError(
            f"{path} is damaged, or no {kind.upper()} ({vips_message(error)}); get a whole copy"
        ) from error


def _decode_by_vips(path: Path, kind: ImageKind, page: int, check_size: Callable[[int, int], None]) -> Decoded:
    """Open a file with libvips; raise pyvips.Error where it is damaged."""
    image = _load(path, kind, 0, "sequential")
    if kind in _PAGED:
        check_page(path, page, _field(image, "n-pages") or 1)
    if page:
        image = _load(path, kind, page, "sequential")
    check_size(image.width, image.height)
    orientation = _field(image, "orientation") or 1
    upright = image
    if orientation == 2:
        upright = image.autorot()
    elif orientation > 2:
        upright = _load(path, kind, page, "random").autorot()
    decoded = Decoded(
        image=upright,
        kind=kind,
        icc=_field(image, "icc-profile-data"),
        exif=exif_from_tiff(path, page) if kind == "tiff" else _field(image, "exif-data"),
        xmp=_field(image, "xmp-data"),
        pixels_per_mm=_resolution(path, image, kind),
    )
    if orientation > 4 and decoded.pixels_per_mm is not None:
        across, down = decoded.pixels_per_mm
        return replace(decoded, pixels_per_mm=(down, across))
    return decoded


def _load(path: Path, kind: ImageKind, page: int, access: Literal["sequential", "random"]) -> Any:
    """Open one page of a file with libvips."""
    options: dict[str, Any] = {"page": page} if page else {}
    if kind in ("tiff", "avif"):
        options["unlimited"] = True  # the caller checks the size
    load = getattr(pyvips.Image, _LOADERS[kind])
    # At any lesser `fail_on` the TIFF loader goes on after missing rows.
    return load(path_for_vips(path), access=access, fail_on="error", **options)


def _from_whole(whole: WholeImage, kind: ImageKind) -> Decoded:
    """Return an image that was decoded whole as one of pyvips."""
    height, width, channels = whole.array.shape
    form = {"uint8": "uchar", "uint16": "ushort", "int16": "short"}[str(whole.array.dtype)]
    grey, colour = {"uchar": ("b-w", "srgb"), "ushort": ("grey16", "rgb16"), "short": ("labs", "labs")}[form]
    pixels = np.ascontiguousarray(whole.array)
    image = pyvips.Image.new_from_memory(pixels, width, height, channels, form)
    image = image.copy(interpretation=grey if channels < 3 else colour)
    image.set_type(pyvips.GValue.gint_type, "bits-per-sample", whole.bits)
    return Decoded(
        image=image,
        kind=kind,
        icc=whole.icc,
        exif=whole.exif,
        xmp=whole.xmp,
        pixels_per_mm=whole.pixels_per_mm,
    )


def _resolution(path: Path, image: Any, kind: ImageKind) -> tuple[float, float] | None:
    """Return pixels per mm where the file states them.

    Elsewhere libvips makes some up, for PNG and WebP without marking them.
    """
    if kind in ("jpeg", "tiff"):
        return (image.xres, image.yres) if _field(image, "resolution-unit") in ("in", "cm") else None
    stated = _png_resolution(path) if kind == "png" else None
    exif = _field(image, "exif-data")
    return stated or (pixels_per_mm(exif.removeprefix(b"Exif\0\0")) if exif else None)


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


def _field(image: Any, name: str) -> Any:
    """Return a metadata field of a pyvips image, or None where it has none of this name."""
    return image.get(name) if image.get_typeof(name) else None
