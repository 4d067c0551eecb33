"""Opens PBM, PGM, PPM and PAM files (P1 to P7), which are decoded whole.

Source of the layouts: netpbm's pbm(5), pgm(5), ppm(5) and pam(5).
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.decoded import Decoded, ReadOptions, check_memory, check_page, image_from_array
from realesr.images.formats.pnm_header import PnmHeader, read_pnm_header
from realesr.images.formats.pnm_text import read_digits, read_numbers


def open_pnm(path: Path, options: ReadOptions) -> Decoded:
    """Open a PBM, PGM, PPM or PAM file; a largest value above 255 makes it 16 bit. Of several images the first is read.

    Raises:
        InputError: damaged, truncated, too large, not page 0, a PFM file, or a PAM file of another tuple type.
    """
    check_page(path, options.page, 1)
    with path.open("rb") as file:
        header = read_pnm_header(path, file)
        options.check_size(path, header.width_px, header.height_px)
        _check_length(path, header)
        needed = header.values * _value_bytes(header)
        check_memory(path, header.width_px, header.height_px, needed, "PNM", "save it as PNG or TIFF first")
        file.seek(header.offset)
        if header.is_text:
            values, has_more = _read_text(path, file, header)
        else:
            values, has_more = _read_binary(path, file, header)
    notice = "the file holds more images; only the first was read"
    return Decoded(
        image=image_from_array(_over_full_range(path, values, header)),
        space="grey" if header.channels < 3 else "rgb",
        has_alpha=header.channels in (2, 4),
        bits=header.bits,
        notices=(notice,) if has_more else (),
    )


def _check_length(path: Path, header: PnmHeader) -> None:
    """Raise InputError where the file is too short for its values, before memory is taken for them."""
    rest = path.stat().st_size - header.offset
    if header.is_bitmap:
        there = rest if header.is_text else _bits_in(rest, header.width_px)
    else:
        there = (rest + 1) // 2 if header.is_text else rest // header.sample_bytes
    if there < header.values:
        raise _truncated(path, there, header)


def _value_bytes(header: PnmHeader) -> float:
    """Return the memory that decoding takes for a value.

    Measured: 1.1 for 8 bit over the full range, 2.1 else and for bitmaps, 4 for 16 bit; as bytes or as text.
    """
    if header.bits == 16:
        return 4.2
    return 1.2 if header.largest == 255 else 2.2


def _truncated(path: Path, there: int, header: PnmHeader) -> InputError:
    """Return the error that names how many values there are."""
    most = "at most " if header.is_text else ""
    return InputError(f"{path} is truncated: it has {most}{there} of {header.values} values; get a whole copy")


def _bits_in(length: int, width_px: int) -> int:
    """Return how many pixels lie in `length` bytes of a binary PBM file, whose rows are padded to bytes."""
    row_bytes = (width_px + 7) // 8
    return length // row_bytes * width_px + min(length % row_bytes * 8, width_px)


def _read_binary(path: Path, file: BinaryIO, header: PnmHeader) -> tuple[NDArray[Any], bool]:
    """Return the values (H, W, C) that follow as bytes, or words of high byte first, and whether an image follows."""
    height, width = header.height_px, header.width_px
    row_bytes = (width + 7) // 8
    length = height * row_bytes if header.is_bitmap else header.values
    stored: NDArray[Any] = np.fromfile(file, np.uint8 if header.sample_bytes == 1 else np.dtype(">u2"), length)
    if stored.size < length:
        there = _bits_in(stored.size, width) if header.is_bitmap else stored.size
        raise _truncated(path, there, header)
    has_more = _begins_image(file.read(3))
    if header.is_bitmap:
        stored = np.unpackbits(stored.reshape(height, row_bytes), axis=1, count=width) ^ 1
    return stored.reshape(height, width, header.channels), has_more


def _read_text(path: Path, file: BinaryIO, header: PnmHeader) -> tuple[NDArray[Any], bool]:
    """Return the values (H, W, C) that follow as decimal numbers, and whether an image follows."""
    read = read_digits if header.is_bitmap else read_numbers
    values, rest = read(file, header.values, header.largest)
    if values.size < header.values:
        if rest:
            shown = rest[:16].decode("ascii", "backslashreplace")
            raise InputError(
                f"{path} is damaged: after {values.size} of {header.values} values it has {shown!r}, "
                f"expected a number from 0 to {header.largest}; get a whole copy"
            )
        raise InputError(f"{path} is truncated: it has {values.size} of {header.values} values; get a whole copy")
    if header.is_bitmap:
        values ^= 1
    return values.reshape(header.height_px, header.width_px, header.channels), _begins_image(rest)


def _begins_image(following: bytes) -> bool:
    """Return whether the bytes after an image begin another one."""
    return following[:1] == b"P" and following[1:2] in tuple(b"1234567"[i : i + 1] for i in range(7))


def _over_full_range(path: Path, values: NDArray[Any], header: PnmHeader) -> NDArray[Any]:
    """Return the values as uint8 or uint16, scaled to round(value * full / largest).

    Raises:
        InputError: a value is above the largest that the header states.
    """
    full = 255 if header.bits == 8 else 65535
    highest = int(values.max())
    if highest > header.largest:
        raise InputError(
            f"{path} is damaged: it has a value of {highest}, expected at most {header.largest}; get a whole copy"
        )
    if header.largest == full:
        return values.astype(f"uint{header.bits}", copy=False)
    scaled = np.rint(np.arange(header.largest + 1) * full / header.largest).astype(f"uint{header.bits}")
    result: NDArray[Any] = scaled[values]
    return result
