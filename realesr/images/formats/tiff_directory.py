"""Reads the directories of a TIFF file, and finds the one that holds the picture. Decodes no pixels.

A page's directory lists fields. Only those are read that say how its samples are stored and what they mean; their
number and size are bounded, as files from anywhere may state any.

Source of the layout: TIFF 6.0, part 1, section 2; BigTIFF by libtiff. Source of the tags: TIFF 6.0, appendix A; Adobe
PageMaker 6.0 TIFF Technical Notes (SubIFDs).
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.images.decoded import check_page
from realesr.images.metadata.tiff_fields import Directory, Field, FileBytes, Layout, read_directory, read_header

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC = (
    254,
    255,
    256,
    257,
    258,
    259,
    262,
)
PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS, ORIENTATION, SAMPLES_PER_PIXEL = 262, 266, 273, 274, 277
ROWS_PER_STRIP, STRIP_BYTES = 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, T4_OPTIONS, T6_OPTIONS, RESOLUTION_UNIT = 282, 283, 284, 292, 293, 296
PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_IFDS = 317, 320, 322, 323, 324, 325, 330
INK_SET, INK_NAMES, NUMBER_OF_INKS, DOT_RANGE, EXTRA_SAMPLES, SAMPLE_FORMAT = 332, 333, 334, 336, 338, 339
INDEXED, JPEG_TABLES, YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, REFERENCE_BLACK_WHITE = 346, 347, 529, 530, 532
XMP, ICC_PROFILE, DNG_VERSION = 700, 34675, 50706

_METADATA = {XMP: 2**24, ICC_PROFILE: 2**24, INK_NAMES: 2**16, SUB_IFDS: 2**12, DNG_VERSION: 4}
_METADATA |= dict.fromkeys((ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT), 2**6)
"""Largest sizes in bytes of fields whose loss leaves the pixels as they are."""
_PIXELS = dict.fromkeys((STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES), 2**27)
_PIXELS |= dict.fromkeys((COLOR_MAP, JPEG_TABLES), 2**20)
_PIXELS |= dict.fromkeys((BITS_PER_SAMPLE, EXTRA_SAMPLES, SAMPLE_FORMAT, DOT_RANGE), 2**19)
_PIXELS |= dict.fromkeys((NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, FILL_ORDER), 2**6)
_PIXELS |= dict.fromkeys((SAMPLES_PER_PIXEL, ROWS_PER_STRIP, PLANAR, T4_OPTIONS, T6_OPTIONS, PREDICTOR), 2**16)
_PIXELS |= dict.fromkeys((TILE_WIDTH, TILE_HEIGHT, INDEXED, INK_SET, NUMBER_OF_INKS), 2**6)
_PIXELS |= dict.fromkeys((YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, REFERENCE_BLACK_WHITE), 2**6)
"""Largest sizes in bytes of fields without which the pixels cannot be understood."""
_MOST_PAGES = 2**16
_CANON_RAW = b"CR"
"""What follows the header of Canon's CR2 files, whose first pages look like photos: they are previews."""
_REDUCED, _MASK = 1, 4
_FORMS = {
    1: "u1",
    2: "u1",
    3: "u2",
    4: "u4",
    6: "i1",
    7: "u1",
    8: "i2",
    9: "i4",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}
_FRACTIONS = {5: "u4", 10: "i4"}
_FLOATS = {11: "f4", 12: "f8"}


@dataclass(frozen=True)
class Page:
    """What one directory says about its samples, with the defaults of TIFF 6.0 for what it does not say."""

    path: Path
    layout: Layout
    fields: dict[int, Field]

    def integers(self, tag: int, *default: int) -> tuple[int, ...]:
        """Return a field's integers, or the default where the page has no such field or it holds no integers."""
        field = self.fields.get(tag)
        return tuple(self.array(tag).tolist()) if field is not None and field.kind in _FORMS else default

    def integer(self, tag: int, default: int) -> int:
        """Return a field's first integer, or the default."""
        return (*self.integers(tag), default)[0]

    def array(self, tag: int) -> NDArray[np.integer]:
        """Return a field's integers as an array (count,), empty where the page has no such field."""
        field = self.fields.get(tag)
        if field is None or field.kind not in _FORMS:
            return np.zeros(0, np.uint8)
        return np.frombuffer(field.data, np.dtype(self.layout.order + _FORMS[field.kind]))

    def fractions(self, tag: int) -> tuple[float, ...]:
        """Return a field's numbers of any type; () where the page has no such field or one is not finite."""
        field = self.fields.get(tag)
        if field is None:
            return ()
        if field.kind in _FRACTIONS:
            pairs = np.frombuffer(field.data, self.layout.order + _FRACTIONS[field.kind]).reshape(-1, 2).tolist()
            return tuple(above / below for above, below in pairs) if all(below for _, below in pairs) else ()
        if field.kind in _FLOATS:
            numbers = np.frombuffer(field.data, self.layout.order + _FLOATS[field.kind])
            return tuple(numbers.tolist()) if np.isfinite(numbers).all() else ()
        return self.integers(tag)

    @cached_property
    def width_px(self) -> int:
        """Return the width as stored, before it is turned."""
        return self.integer(WIDTH, 0)

    @cached_property
    def height_px(self) -> int:
        """Return the height as stored, before it is turned."""
        return self.integer(HEIGHT, 0)

    @cached_property
    def samples(self) -> int:
        """Return the number of samples of each pixel."""
        return self.integer(SAMPLES_PER_PIXEL, 1)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Return the bits of each sample; writers that give one number mean all samples."""
        stated = self.integers(BITS_PER_SAMPLE, 1)
        return stated * self.samples if len(stated) == 1 else stated[: self.samples]

    @cached_property
    def compression(self) -> int:
        """Return the compression scheme; 1 is none."""
        return self.integer(COMPRESSION, 1)

    @cached_property
    def photometric(self) -> int | None:
        """Return PhotometricInterpretation, which has no default."""
        return (*self.integers(PHOTOMETRIC), None)[0]

    @cached_property
    def is_planar(self) -> bool:
        """Return whether each channel is stored as a plane of its own."""
        return self.integer(PLANAR, 1) == 2 and self.samples > 1

    @cached_property
    def is_tiled(self) -> bool:
        """Return whether the pixels are stored in tiles rather than strips."""
        return TILE_WIDTH in self.fields

    @cached_property
    def orientation(self) -> int:
        """Return the orientation, 1 to 8; what is no orientation counts as upright."""
        stated = self.integer(ORIENTATION, 1)
        return stated if 1 <= stated <= 8 else 1

    @cached_property
    def is_picture(self) -> bool:
        """Return whether this is no reduced version of another image and no mask. Source: TIFF 6.0, section 8."""
        if NEW_SUBFILE_TYPE in self.fields:
            return not self.integer(NEW_SUBFILE_TYPE, 0) & (_REDUCED | _MASK)
        return self.integer(SUBFILE_TYPE, 1) != 2

    def metadata(self, tag: int) -> bytes | None:
        """Return the bytes of a field such as a profile, or None."""
        field = self.fields.get(tag)
        return field.data if field is not None else None


@dataclass(frozen=True)
class FoundPage:
    """The page to read."""

    page: Page
    number: int
    """Number of the page, from 0; of a sub-directory, the page that it belongs to."""
    notice: str | None = None
    """Notice where the picture is not what the file begins with, or not all that it holds."""


def find_page(path: Path, number: int | None) -> FoundPage:
    """Find page `number` of a TIFF file, from 0; None is the picture that the file presents.

    That is page 0, unless page 0 is a reduced image or a mask: then the first image that is neither, in page 0's
    sub-directories or on a later page. Where all are reduced or masks, it is page 0 again.

    Raises:
        InputError: there is no such page, a directory is damaged, or the file is a camera's raw by its header.
    """
    try:
        with path.open("rb") as file:
            if file.read(10)[8:] == _CANON_RAW:
                raise InputError(f"{path} is a camera's raw file: develop it to TIFF or JPEG first")
            pages = _Pages(path, file)
            return pages.picture() if number is None else FoundPage(pages.numbered(number), number)
    except (ValueError, struct.error) as error:
        raise InputError(f"{path} is damaged, or no TIFF ({error}); get a whole copy") from error


_MORE_PAGES = "the file holds more pages; only the first was read"


class _Pages:
    """The directories of an open file."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._buffer = path, FileBytes(file)
        self._layout, first = read_header(self._buffer)
        self._offsets = [first]
        self._seen = {first}

    def numbered(self, number: int) -> Page:
        """Return page `number`; raise InputError where there is none."""
        while not 0 <= number < len(self._offsets) and self._find_next():
            pass
        check_page(self._path, number, len(self._offsets))
        return self._page(self._offsets[number])

    def picture(self) -> FoundPage:
        """Return the page that the file presents."""
        first = self.numbered(0)
        if first.is_picture:
            return FoundPage(first, 0, _MORE_PAGES if self._has_another_picture() else None)
        for offset in first.integers(SUB_IFDS):
            page = self._page(offset)
            if page.is_picture:
                fields = {ORIENTATION: first.fields[ORIENTATION]} if ORIENTATION in first.fields else {}
                page = Page(page.path, page.layout, fields | page.fields)
                return FoundPage(page, 0, "page 0 is a preview; the picture in its sub-directory was read")
        number = 1
        while number < len(self._offsets) or self._find_next():
            page = self._page(self._offsets[number])
            if page.is_picture:
                return FoundPage(page, number, f"page 0 is a preview or a mask; page {number} was read")
            number += 1
        return FoundPage(first, 0)

    def _has_another_picture(self) -> bool:
        """Return whether a page after page 0 is a picture; what is damaged there is none, for it is not read."""
        try:
            number = 1
            while number < len(self._offsets) or self._find_next():
                if self._page(self._offsets[number]).is_picture:
                    return True
                number += 1
        except (ValueError, struct.error):
            pass
        return False

    def _find_next(self) -> bool:
        """Append the offset of the directory after the last that is known; return False where there is none."""
        following = read_directory(self._buffer, self._offsets[-1], self._layout).following
        if following == 0 or following in self._seen or len(self._offsets) >= _MOST_PAGES:
            return False
        self._offsets.append(following)
        self._seen.add(following)
        return True

    def _page(self, offset: int) -> Page:
        """Return the page whose directory is at `offset`."""
        directory = read_directory(self._buffer, offset, self._layout)
        if not directory.entries:
            raise ValueError(f"the directory at {offset} is empty")
        return Page(self._path, self._layout, _read_fields(self._buffer, directory))


def _read_fields(buffer: FileBytes, directory: Directory) -> dict[int, Field]:
    """Return the fields of a directory that matter here; metadata whose value is missing is left out.

    Raises:
        ValueError: a field without which the samples cannot be understood is not in the file.
    """
    fields: dict[int, Field] = {}
    for entry in directory.entries:
        most_bytes = _PIXELS.get(entry.tag) or _METADATA.get(entry.tag) or 0
        if not most_bytes or entry.tag in fields:
            continue
        data = buffer[entry.place : entry.place + entry.size] if 0 < entry.size <= most_bytes else b""
        if data and len(data) == entry.size:
            fields[entry.tag] = Field(entry.tag, entry.kind, entry.count, data)
        elif entry.tag in _PIXELS and entry.count:
            raise ValueError(f"field {entry.tag} with {entry.count} values of type {entry.kind} is not in the file")
    return fields
