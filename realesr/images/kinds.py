"""Recognises the kind of image in a file by its first bytes; a file's name is only a hint. Uses no libraries."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Literal

from realesr.errors import InputError
from realesr.images.other_kinds import is_camera_raw, is_text, name_of

ImageKind = Literal["jpeg", "png", "tiff", "webp", "avif", "gif", "bmp", "ppm", "heic"]

SUFFIXES: dict[str, ImageKind] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".avif": "avif",
    ".gif": "gif",
    ".bmp": "bmp",
    ".dib": "bmp",
    ".ppm": "ppm",
    ".pgm": "ppm",
    ".pbm": "ppm",
    ".pnm": "ppm",
    ".pam": "ppm",
    ".heic": "heic",
    ".heif": "heic",
    ".hif": "heic",
}
"""Suffix in lower case -> kind of image that files with it should hold."""

IMAGE_SUFFIXES = frozenset(SUFFIXES)
"""Suffixes of the files that are read from folders."""

READABLE = "JPEG, PNG, TIFF, WebP, AVIF, GIF, BMP, PPM or HEIC"

_RAW_SUFFIXES = frozenset(
    (".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw", ".3fr", ".iiq")
)
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_PNM_DIGITS = frozenset((b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"F", b"f"))
_SUFFIXES_WITHOUT_SIGNATURE = {".tga": "TGA", ".pcd": "Photo CD", ".wbmp": "WBMP", ".mp3": "sound (MP3)"}
_SNIFF_BYTES = 1024


def find_kind(path: Path) -> ImageKind:
    """Return the kind of image in the file at `path`.

    Raises:
        InputError: the file is missing, no regular file, empty, unreadable, a camera's raw file, or of a kind that is
            not read, which the message names.
    """
    head = _first_bytes(path)
    if not head:
        raise InputError(f"{path} is empty (0 bytes): expected an image; copy or download it again")
    kind = kind_of(head)
    suffix = path.suffix.lower()
    is_tiff_of_a_camera = kind == "tiff" and (suffix in _RAW_SUFFIXES or is_camera_raw(head))
    is_text_like_bmp = kind == "bmp" and is_text(head)  # "BM" begins words, too
    if kind is not None and not is_tiff_of_a_camera and not is_text_like_bmp:
        return kind
    raise InputError(f"{path} {_why_not_read(head, suffix)}")


def _why_not_read(head: bytes, suffix: str) -> str:
    """Return what a file is that begins with `head` and is not read, as the end of a sentence, with what to do."""
    name = name_of(head)
    if suffix in _RAW_SUFFIXES and (name is None or kind_of(head) == "tiff"):
        return "is a camera's raw file: develop it to TIFF or JPEG first"
    if name is None and suffix in _SUFFIXES_WITHOUT_SIGNATURE:
        name = _SUFFIXES_WITHOUT_SIGNATURE[suffix]
    if name is None:
        return f"is not an image: it begins with {_shown(head)}, expected {READABLE}"
    name, colon, advice = name.partition(": ")
    return f"is {name}, which is not read: {advice if colon else f'expected {READABLE}'}"


def kind_of(head: bytes) -> ImageKind | None:
    """Return the kind of image whose file begins with `head`, or None where it is not known.

    Source: the signatures in each format's specification.
    """
    if head[4:8] == b"ftyp":
        return _kind_by_brands(head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    signatures: tuple[tuple[bytes, ImageKind], ...] = (
        (b"\xff\xd8\xff", "jpeg"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"II+\0", "tiff"),
        (b"MM\0+", "tiff"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"BM", "bmp"),
    )
    for signature, kind in signatures:
        if head.startswith(signature):
            return kind
    if head[:2] == b"BA" and head[14:16] == b"BM":  # an array of OS/2 bitmaps, which its opener refuses by name
        return "bmp"
    # PFM ("PF", "Pf") is of the same family: its opener refuses it by name.
    is_pnm = head[:1] == b"P" and head[1:2] in _PNM_DIGITS and (head[2:3].isspace() or head[2:3] == b"#")
    return "ppm" if is_pnm else None


def expected_kind(path: Path) -> ImageKind | None:
    """Return the kind of image that a file's suffix stands for, or None."""
    return SUFFIXES.get(path.suffix.lower())


def mislabel_notice(path: Path, kind: ImageKind) -> str | None:
    """Return a notice where the file's suffix stands for another kind than the file holds; else None."""
    expected = expected_kind(path)
    if expected is None or expected == kind:
        return None
    return f"{path.name} holds {kind.upper()} data, not {expected.upper()}; it was read as {kind.upper()}"


def check_is_file(path: Path) -> None:
    """Raise InputError where there is no regular file at `path`, without opening what might block."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            raise InputError(f"{path} is a link to {os.readlink(path)}, which does not exist") from None
        raise InputError(f"{path} does not exist: expected an image file") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: check the permissions of its folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder: expected an image file")
    if not stat.S_ISREG(mode):
        name = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise InputError(f"{path} is {name}: expected an image file; write the data to a file first")


def _first_bytes(path: Path) -> bytes:
    """Read the beginning of a file; raise InputError where it cannot be read."""
    check_is_file(path)
    try:
        with path.open("rb") as file:
            return file.read(_SNIFF_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: expected an image file") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: check its permissions") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _kind_by_brands(head: bytes) -> ImageKind | None:
    """Tell AVIF from HEIC by the brands in the `ftyp` box. Source: ISO/IEC 14496-12, 4.3; 23008-12, annex B."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12]} | {head[i : i + 4] for i in range(16, size - 3, 4)}
    if brands & {b"avif", b"avis"}:
        return "avif"
    return "heic" if brands & _HEIC_BRANDS else None


def _shown(head: bytes) -> str:
    """Return the first bytes for a message: quoted where they are text, else in hexadecimal."""
    start = head[:16]
    return repr(start.decode("utf-8", "ignore")) if is_text(start) else f"the bytes {head[:8].hex(' ')}"
