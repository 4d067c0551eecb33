"""Decodes whole files: BMP, PPM and 8-bit Lab TIFF with Pillow, HEIC with pillow-heif where that is installed.

libvips has no loader for them (8-bit Lab: libvips 8.18 refuses its own loader's header, "bad labq format"; this goes
when a version reads it). Peak memory grows with such images' height; they are read into one array.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.exif import exif_from_tiff, fields_of_page

if TYPE_CHECKING:
    from PIL.Image import Image

CheckSize = Callable[[int, int], None]
"""Called with width and height before a pixel is decoded; raises InputError where that is too many."""


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """A decoded image; alpha, where there is one, is the last channel."""

    array: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int16]
    """(H, W, C), full range of its type; C is 1 to 4. int16 is Lab: L in [0, 32767], a and b in 1/256."""
    bits: int
    """Depth of the file's samples: 8 or 16."""
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    pixels_per_mm: tuple[float, float] | None = None


def read_bmp(path: Path, check_size: CheckSize) -> WholeImage:
    """Read a BMP file.

    Raises:
        InputError: damaged or truncated.
    """
    from PIL.BmpImagePlugin import BmpImageFile

    with _as_input_error(path), BmpImageFile(path) as image:
        check_size(*image.size)
        return WholeImage(array=_array_from(image), bits=8, pixels_per_mm=_pixels_per_mm(image))


def read_ppm(path: Path, check_size: CheckSize) -> WholeImage:
    """Read a PBM, PGM or PPM file, 16 bit included.

    Raises:
        InputError: damaged or truncated.
    """
    from PIL.PpmImagePlugin import PpmImageFile

    with path.open("rb") as file:
        deep = _deep_header(file.read(4096))
    if deep is not None:
        return _read_deep_ppm(path, deep, check_size)
    with _as_input_error(path), PpmImageFile(path) as image:
        check_size(*image.size)
        return WholeImage(array=_array_from(image), bits=8)


def is_lab_of_8_bit(path: Path, page: int) -> bool:
    """Return whether page `page` of a TIFF file is CIE Lab of 8 bit in three channels."""
    try:
        values = {field.tag: list(field.data) for field in fields_of_page(path, page)}
    except (ValueError, OSError):
        return False
    photometric, depth, channels = (values.get(tag, [0, 0]) for tag in (262, 258, 277))
    return 8 in photometric and 8 in depth[:2] and 3 in channels[:2]


def read_lab_tiff(path: Path, page: int, check_size: CheckSize) -> WholeImage:
    """Read an 8-bit Lab TIFF.

    Raises:
        InputError: damaged or truncated.
    """
    from PIL.TiffImagePlugin import TiffImageFile

    with _as_input_error(path), TiffImageFile(path) as image:
        image.seek(page)
        check_size(*image.size)
        stored = np.asarray(image)
    lab = np.empty(stored.shape, np.int16)
    lab[:, :, 0] = (stored[:, :, 0].astype(np.int32) * 32767 + 127) // 255
    lab[:, :, 1:] = stored[:, :, 1:].view(np.int8).astype(np.int16) * 256
    return WholeImage(array=lab, bits=8, exif=exif_from_tiff(path, page))


def read_heic(path: Path, page: int, check_size: CheckSize) -> WholeImage:
    """Read a HEIC file; the decoder applies its rotation, and returns 10 and 12 bit as 16.

    Raises:
        InputError: pillow-heif is missing, the file is damaged, or has no such page.
    """
    try:
        import pillow_heif
    except ImportError:
        raise InputError(f"{path} is HEIC, which needs one more package: pip install pillow-heif") from None

    with _as_input_error(path):
        file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
        check_page(path, page, len(file))
        image = file[page]
        check_size(*image.size)
        array = np.ascontiguousarray(np.asarray(image))
    facts: dict[str, Any] = dict(image.info)
    return WholeImage(
        array=array[:, :, None] if array.ndim == 2 else array,
        bits=8 * array.itemsize,
        icc=facts.get("icc_profile"),
        exif=facts.get("exif"),
        xmp=facts.get("xmp"),
    )


def check_page(path: Path, page: int, pages: int) -> None:
    """Raise InputError where a file of `pages` pages has no page `page`, counted from 0."""
    if not 0 <= page < pages:
        expected = "only page 0" if pages == 1 else f"{pages} pages, 0 to {pages - 1}"
        raise InputError(f"{path} has no page {page}: it has {expected}")


class _as_input_error:  # noqa: N801 - used as a statement
    """Context that turns errors of Pillow and pillow-heif about a file into InputError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError, SyntaxError, RuntimeError, EOFError, IndexError)):
            reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
            raise InputError(f"{self.path} is truncated or damaged ({reason}); get a whole copy") from error


def _array_from(image: "Image") -> NDArray[np.uint8]:
    """Convert a Pillow image of 8 bit or less to a (H, W, C) array."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _pixels_per_mm(image: "Image") -> tuple[float, float] | None:
    """Return the resolution across and down, where the file states one."""
    dpi = image.info.get("dpi")
    if not dpi or min(dpi) <= 0:
        return None
    return float(dpi[0]) / 25.4, float(dpi[1]) / 25.4


def _deep_header(head: bytes) -> tuple[int, int, int, int, int] | None:
    """Return channels, width, height, largest value and offset of the pixels of a binary 16-bit PPM or PGM; else None.

    Source: netpbm's ppm(5) and pgm(5). Pillow reads 16-bit PPM as 8 bit.
    """
    gap = rb"(?:\s|#[^\n]*\n)+"
    found = re.match(rb"P([56])" + gap + rb"(\d+)" + gap + rb"(\d+)" + gap + rb"(\d+)\s", head)
    if found is None or int(found[4]) <= 255:
        return None
    return 1 if found[1] == b"5" else 3, int(found[2]), int(found[3]), int(found[4]), found.end()


def _read_deep_ppm(path: Path, header: tuple[int, int, int, int, int], check_size: CheckSize) -> WholeImage:
    """Read the pixels of a 16-bit PPM or PGM, scaled to the full range of uint16."""
    channels, width, height, largest, offset = header
    if largest > 65535 or not width or not height:
        raise InputError(f"{path} is damaged: {width} x {height} px of values up to {largest}; get a whole copy")
    check_size(width, height)
    with path.open("rb") as file:
        values = np.fromfile(file, ">u2", width * height * channels, offset=offset)
    if values.size < width * height * channels:
        raise InputError(f"{path} is truncated: {values.size} of {width * height * channels} values; get a whole copy")
    scaled = (values.astype(np.uint32) * 65535 + largest // 2) // largest
    return WholeImage(array=scaled.astype(np.uint16).reshape(height, width, channels), bits=16)
