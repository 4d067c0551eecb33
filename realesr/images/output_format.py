"""Name and format of an output, and whether that format and the place can hold it; checked before the first tile."""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from realesr.errors import OutputError, OutputExists, UsageError
from realesr.images.info import ImageInfo, OutputFormat
from realesr.images.metadata.chunks import MOST_EXIF_BYTES_IN_JPEG, MOST_XMP_BYTES_IN_JPEG

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
"""Suffix in lower case -> format that it stands for; the first of a format is its usual suffix."""

NAMES: dict[str, OutputFormat] = {suffix[1:]: fmt for suffix, fmt in SUFFIXES.items()}
"""Name that a user may give -> format: "png", "jpg", "jpeg", ..."""

DEFAULT_QUALITY: dict[OutputFormat, int] = {"jpeg": 95, "webp": 90, "avif": 80}
"""Quality of the lossy formats; the others are lossless and have none."""

LONGEST_SIDE_PX: dict[OutputFormat, int] = {"jpeg": 65_500, "webp": 16_383, "avif": 16_384}
"""Source: JPEG_MAX_DIMENSION in libjpeg-turbo's jmorecfg.h, WEBP_MAX_DIMENSION in libwebp's encode.h; AVIF: tried."""

_LONGEST_NAME_BYTES = 255
"""Longest name of a file on most disks. Source: NAME_MAX in Linux' limits.h."""

_BYTES_OF_RAW: dict[OutputFormat, tuple[float, float]] = {
    "png": (0.3, 1.05),
    "tiff": (0.3, 1.05),
    "jpeg": (0.02, 0.4),
    "webp": (0.005, 0.3),
    "avif": (0.005, 0.3),
}
"""File size by raw size: what a photo hardly stays under, and what it hardly exceeds. Assumptions, from a few photos
enlarged here: PNG and TIFF 0.35 to 0.6, JPEG at quality 95 0.05 to 0.2."""


def output_format(kind: str | None, target: Path | None, wanted: str | None) -> OutputFormat:
    """Return the format of an output: `wanted`, else the one of the target's suffix, else the input's.

    An input of a format that cannot be written (GIF, BMP, PPM, HEIC) becomes PNG.

    Args:
        kind: the input's kind, such as "jpeg"; None where it is not known.
        target: path of the output; None where it is not named yet.
        wanted: name of a format, such as "jpeg", "JPG" or ".tif".

    Raises:
        UsageError: `wanted`, or else the suffix, stands for no format that can be written.
    """
    if wanted is not None:
        name = wanted.lower().lstrip(".")
        if name not in NAMES:
            raise UsageError(f"format {wanted!r} is not known, expected png, jpeg, tiff, webp or avif", option="format")
        return NAMES[name]
    if target is not None and target.suffix:
        fmt = format_of(target)
        if fmt is None:
            raise UsageError(
                f"{target} ends in {target.suffix!r}, expected {', '.join(SUFFIXES)}; or name the format",
                option="format",
            )
        return fmt
    return NAMES.get(kind or "", "png")


def format_of(path: Path) -> OutputFormat | None:
    """Return the format that a path's suffix stands for, or None where it is not one that can be written."""
    return SUFFIXES.get(path.suffix.lower())


PREVIEW_ENDING = "_preview"
"""What the stem of the name of a preview, which shows only a region, ends in."""


def output_path(source: Path, ending: str, fmt: OutputFormat, folder: Path | None = None) -> Path:
    """Return the default path of an output: `<stem>_<ending>.<suffix>`, beside the source or in `folder`.

    Args:
        source: path of the input.
        ending: end of the stem, such as "x4" or "3840px"; see `ImageOptions.ending`.
        fmt: format of the output.
        folder: folder of the output; None for that of the source.
    """
    return (folder or source.parent) / f"{source.stem}_{ending}{suffix_for(fmt, source)}"


def suffix_for(fmt: OutputFormat, source: Path) -> str:
    """Return the suffix of an output: the source's own where it stands for the format `fmt`, else the usual one."""
    if format_of(source) == fmt:
        return source.suffix
    return next(suffix for suffix, named in SUFFIXES.items() if named == fmt)


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Raise where writing to `target` would replace the input, a file that may not be overwritten, or no file at all.

    Raises:
        OutputExists: the target exists, and `overwrite` is false.
        OutputError: the target is the source itself, perhaps under another name (a link), or a folder, pipe or device,
            or it has a name that the disk does not take.
    """
    try:
        found = target.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise OutputError(f"{target} cannot be written: {_why_no_such_name(target, error)}", option="output") from error
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{target} is {_kind_of_place(found.st_mode)}, expected a file name", option="output")
    if source.exists() and target.samefile(source):
        raise OutputError(f"{target} is the input {source} itself: the output would replace the input", option="output")
    if not overwrite:
        raise OutputExists(f"{target} is there already", option="overwrite")


def _why_no_such_name(path: Path, error: OSError | ValueError) -> str:
    """Return why the system refuses a path, with the length of its name where that is too long."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return getattr(error, "strerror", None) or str(error)
    length = len(os.fsencode(path.name))
    if length <= _LONGEST_NAME_BYTES:
        return "its path is too long; choose a place with a shorter one"
    return (
        f"its name has {length} bytes, and the disk takes {_LONGEST_NAME_BYTES}; rename the input, or name the output"
    )


def _kind_of_place(mode: int) -> str:
    """Return what there is of no regular file, by its mode: "a folder"."""
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def check_output(path: Path, info: ImageInfo, fmt: OutputFormat) -> tuple[str, ...]:
    """Return notices about what will be lost when an image of `info` is written to `path`; raise where it cannot be.

    Raises:
        OutputError: the image is too large for the format or has alpha that it cannot hold; the folder is missing or
            may not be written to; `path` is a folder; the disk is too full.
    """
    _check_size(path, info, fmt)
    if fmt == "jpeg" and info.has_alpha:
        raise OutputError(
            f"{path}: JPEG cannot hold the image's transparency; choose png, webp, tiff or avif", option="format"
        )
    _check_place(path)
    notices = []
    if info.bits == 16 and fmt not in ("png", "tiff"):
        notices.append(f"{fmt.upper()} holds 8 bit a channel: 16 bit are rounded; PNG and TIFF keep them")
    parts = (("XMP", info.xmp, MOST_XMP_BYTES_IN_JPEG), ("EXIF", info.exif, MOST_EXIF_BYTES_IN_JPEG))
    for name, data, most_bytes in parts:
        if fmt == "jpeg" and data is not None and len(data) > most_bytes:
            notices.append(f"{name} of {len(data):,} bytes does not fit into JPEG and is left out; PNG keeps it")
    space = _check_space(path, info, fmt)
    return (*notices, *([space] if space else []))


def _check_size(path: Path, info: ImageInfo, fmt: OutputFormat) -> None:
    """Raise OutputError where a side is longer than the format can hold."""
    longest = LONGEST_SIDE_PX.get(fmt)
    if longest is not None and max(info.width_px, info.height_px) > longest:
        raise OutputError(
            f"{path}: {info.width_px} x {info.height_px} px do not fit into {fmt.upper()}, which holds {longest:,} px "
            f"a side; choose a smaller scale or size, or png or tiff as the format",
            option="format",
        )


def _check_place(path: Path) -> None:
    """Raise OutputError where no file can be made at `path`."""
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder, expected a file name", option="output")
    if not folder.exists():
        raise OutputError(f"{folder} does not exist: make the folder first", option="output")
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, expected a folder", option="output")
    if _is_read_only(folder):
        raise OutputError(f"{folder} lies on a disk that is mounted read-only: choose another place", option="output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} may not be written to: check its permissions", option="output")


def _is_read_only(folder: Path) -> bool:
    """Return whether a folder's disk is mounted read-only, as far as the system tells."""
    if not hasattr(os, "statvfs"):
        return False
    with contextlib.suppress(OSError):
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    return False


def _check_space(path: Path, info: ImageInfo, fmt: OutputFormat) -> str | None:
    """Raise OutputError where the disk is too full for the output; return a notice where it may be."""
    raw = info.width_px * info.height_px * info.channels * (info.bits // 8 if fmt in ("png", "tiff") else 1)
    least, most = (int(raw * share) for share in _BYTES_OF_RAW[fmt])
    try:
        disk = shutil.disk_usage(path.parent)
    except OSError:
        return None
    free = disk.free
    if not disk.total:  # some network disks do not tell
        return None
    if free < least:
        raise OutputError(
            f"{path}: the disk has {_megabytes(free)} free, and the output needs {_megabytes(least)} to "
            f"{_megabytes(most)}; free some, or write to another disk",
            option="output",
        )
    if free < most:
        return f"the disk has {_megabytes(free)} free, and the output may need up to {_megabytes(most)}"
    return None


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
