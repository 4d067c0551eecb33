"""Recognises the kind of image in a file by its first bytes; a file's name is only a hint. Uses no libraries."""

from pathlib import Path
from typing import Literal

from realesr.errors import InputError

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
_SNIFF_BYTES = 256


def find_kind(path: Path) -> ImageKind:
    """Return the kind of image in the file at `path`.

    Raises:
        InputError: the file is missing, a folder, empty, unreadable, a camera's raw file, or of no known kind.
    """
    head = _first_bytes(path)
    if not head:
        raise InputError(f"{path} is empty (0 bytes): expected an image; copy or download it again")
    kind = kind_of(head)
    if kind == "tiff" and path.suffix.lower() in _RAW_SUFFIXES:
        kind = None
    if kind is not None:
        return kind
    if path.suffix.lower() in _RAW_SUFFIXES:
        raise InputError(f"{path} is a camera's raw file: develop it to TIFF or JPEG first")
    raise InputError(f"{path} is not an image: it begins with {_shown(head)}, expected {READABLE}")


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
    is_ppm = head[:1] == b"P" and head[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6") and head[2:3].isspace()
    return "ppm" if is_ppm else None


def expected_kind(path: Path) -> ImageKind | None:
    """Return the kind of image that a file's suffix stands for, or None."""
    return SUFFIXES.get(path.suffix.lower())


def mislabel_notice(path: Path, kind: ImageKind) -> str | None:
    """Return a notice where the file's suffix stands for another kind than the file holds; else None."""
    expected = expected_kind(path)
    if expected is None or expected == kind:
        return None
    return f"{path.name} holds {kind.upper()} data, not {expected.upper()}; it was read as {kind.upper()}"


def _first_bytes(path: Path) -> bytes:
    """Read the beginning of a file; raise InputError where it cannot be read."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder: expected an image file")
        with path.open("rb") as file:
            return file.read(_SNIFF_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: expected an image file") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: check its permissions") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _kind_by_brands(head: bytes) -> ImageKind | None:
    """Tell AVIF from HEIC by the brands in the `ftyp` box. Source: ISO/IEC 14496-12, 4.3; 23008-12, annex B."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12]} | {head[i : i + 4] for i in range(16, size - 3, 4)}
    if brands & {b"avif", b"avis"}:
        return "avif"
    return "heic" if brands & _HEIC_BRANDS else None


def _shown(head: bytes) -> str:
    """Return the first bytes as text for a message, or in hexadecimal where they are not printable."""
    text = head[:16].decode("ascii", errors="replace")
    return repr(text) if text.isprintable() else f"the bytes {head[:8].hex(' ')}"
