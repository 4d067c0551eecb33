"""Which format an output gets, and whether that format and the place can hold it; checked before the first tile."""

import os
import shutil
from pathlib import Path

from realesr.errors import OutputError, UsageError
from realesr.image_info import ImageInfo, OutputFormat

SUFFIXES: dict[str, OutputFormat] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".avif": "avif",
}
"""What each suffix, in lower case, asks for; the first of a format is the one that it gets by default."""

NAMES: dict[str, OutputFormat] = {suffix[1:]: fmt for suffix, fmt in SUFFIXES.items()}

LONGEST_SIDE_PX: dict[OutputFormat, int] = {"jpeg": 65_500, "webp": 16_383, "avif": 16_384}
"""Source: JPEG_MAX_DIMENSION in libjpeg-turbo's jmorecfg.h, WEBP_MAX_DIMENSION in libwebp's encode.h; AVIF: tried."""

MOST_METADATA_BYTES_IN_JPEG = 65_502
"""One APP1 segment, less the head of XMP. Source: XMP specification, part 3, 1.1.3."""

_BYTES_OF_RAW: dict[OutputFormat, tuple[float, float]] = {
    "png": (0.3, 1.05),
    "tiff": (0.3, 1.05),
    "jpeg": (0.02, 0.4),
    "webp": (0.005, 0.3),
    "avif": (0.005, 0.3),
}
"""File size by raw size: what a photo hardly stays under, and what it hardly exceeds. Assumptions, from a few photos
enlarged here: PNG and TIFF 0.35 to 0.6, JPEG at quality 95 0.05 to 0.2."""


def output_format(info: ImageInfo, path: Path | None, wanted: str | None) -> OutputFormat:
    """Format of the output: `wanted`, else what the suffix of `path` says, else the input's.

    An input of a format that is not written (GIF, BMP, PPM, HEIC) becomes PNG.

    Raises:
        UsageError: `wanted`, or else the suffix, names no format that is written.
    """
    if wanted is not None:
        if wanted.lower().lstrip(".") not in NAMES:
            raise UsageError(f"format {wanted!r} is not known, expected png, jpeg, tiff, webp or avif")
        return NAMES[wanted.lower().lstrip(".")]
    if path is not None and path.suffix:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"{path} ends in {path.suffix!r}, expected {', '.join(SUFFIXES)}; or name the format by --format"
            )
        return SUFFIXES[path.suffix.lower()]
    return NAMES.get(info.format, "png")


def suffix_for(fmt: OutputFormat, source: Path) -> str:
    """Suffix of an output of format `fmt`: the source's own where it names that format, else the usual one."""
    if SUFFIXES.get(source.suffix.lower()) == fmt:
        return source.suffix
    return next(suffix for suffix, named in SUFFIXES.items() if named == fmt)


def check_output(path: Path, info: ImageInfo, fmt: OutputFormat) -> tuple[str, ...]:
    """Raise where an image of `info` cannot be written to `path`; else give notices of what will change in it.

    Raises:
        OutputError: the image is too large for the format or has alpha that it cannot hold; the folder is missing or
            may not be written to; `path` is a folder; the disk is too full.
    """
    _check_size(path, info, fmt)
    if fmt == "jpeg" and info.has_alpha:
        raise OutputError(f"{path}: JPEG cannot hold the image's transparency; choose --format png, webp, tiff or avif")
    _check_place(path)
    notices = []
    if info.bits == 16 and fmt not in ("png", "tiff"):
        notices.append(f"{fmt.upper()} holds 8 bit a channel: 16 bit are rounded; --format png or tiff keeps them")
    for name, data in (("XMP", info.xmp), ("EXIF", info.exif)):
        if fmt == "jpeg" and data is not None and len(data) > MOST_METADATA_BYTES_IN_JPEG:
            notices.append(
                f"{name} of {len(data):,} bytes does not fit into JPEG and is left out; --format png keeps it"
            )
    space = _check_space(path, info, fmt)
    return (*notices, *([space] if space else []))


def _check_size(path: Path, info: ImageInfo, fmt: OutputFormat) -> None:
    longest = LONGEST_SIDE_PX.get(fmt)
    if longest is not None and max(info.width_px, info.height_px) > longest:
        raise OutputError(
            f"{path}: {info.width_px} x {info.height_px} px do not fit into {fmt.upper()}, which holds {longest:,} px "
            f"a side; choose --format png or tiff, or a smaller --scale"
        )


def _check_place(path: Path) -> None:
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder, expected a file name")
    if not folder.exists():
        raise OutputError(f"{folder} does not exist: make the folder first, or choose another --output")
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, expected a folder; choose another --output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} may not be written to: check its permissions, or choose another --output")


def _check_space(path: Path, info: ImageInfo, fmt: OutputFormat) -> str | None:
    """Refuse what cannot fit; a notice where it may not."""
    raw = info.width_px * info.height_px * info.channels * (info.bits // 8 if fmt in ("png", "tiff") else 1)
    least, most = (int(raw * share) for share in _BYTES_OF_RAW[fmt])
    free = shutil.disk_usage(path.parent).free
    if free < least:
        raise OutputError(
            f"{path}: the disk has {_megabytes(free)} free, and the output needs {_megabytes(least)} to "
            f"{_megabytes(most)}; free some, or choose another --output"
        )
    if free < most:
        return f"the disk has {_megabytes(free)} free, and the output may need up to {_megabytes(most)}"
    return None


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
