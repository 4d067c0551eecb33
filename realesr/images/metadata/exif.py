"""Reads EXIF blocks, sets their orientation, and carries them into TIFF files and out of them. Uses no libraries.

An EXIF block is a TIFF file without pixels: directories of fields, two of them (Exif and GPS) reached by pointers. In
a TIFF file these directories are part of the file's own; there maker notes cannot stay where they were in the block.
A block is taken from its TIFF header on; "Exif\\0\\0" in front of it, as JPEG has it, is tolerated.

Source of the tags: CIPA DC-008 (Exif 3.0), 4.6; TIFF 6.0, part 1, section 8.
"""

import struct
from fractions import Fraction
from pathlib import Path

from realesr.images.metadata.exif_block import EXIF_POINTER, FIRST, GPS_POINTER, INTEROP_POINTER, ExifBlock
from realesr.images.metadata.storage_tags import is_about_storage
from realesr.images.metadata.tiff_fields import (
    IFD,
    IFD8,
    LONG,
    LONG8,
    RATIONAL,
    SHORT,
    Buffer,
    Field,
    FileBytes,
    Layout,
    directory_of_page,
    pack_fields,
    read_directory,
    read_fields,
    read_header,
    read_values,
    swapped,
)

__all__ = [
    "LONG",
    "LONG8",
    "SHORT",
    "Field",
    "Layout",
    "append_to_tiff",
    "exif_from_tiff",
    "fields_of_page",
    "orientation",
    "pack_fields",
    "pixels_per_mm",
    "read_fields",
    "read_header",
    "repacked",
    "upright",
    "with_resolution",
    "without_missing",
]

ORIENTATION, SUBJECT_AREA, SUBJECT_LOCATION = 0x0112, 0x9214, 0xA214
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
FOCAL_PLANE_X, FOCAL_PLANE_Y = 0xA20E, 0xA20F

_MARK = b"Exif\0\0"
_INCH, _CM = 2, 3


def orientation(exif: bytes) -> int:
    """Return the orientation that a block states, 1 to 8; 1 where it is missing, damaged, or another number."""
    try:
        block = ExifBlock(exif.removeprefix(_MARK))
    except ValueError:
        return 1
    entry = block.find(FIRST, ORIENTATION)
    values = block.integers(entry) if entry else []
    return values[0] if values and 1 <= values[0] <= 8 else 1


def upright(exif: bytes) -> bytes | None:
    """Return the block of an image that was turned as its orientation says; None where the block is damaged.

    The orientation is set to 1, and left where it says nothing (0, 9 ...). What depends on the direction of rows and
    columns turns with the image: unequal resolutions, and the place of the subject. The image's size is not changed
    here. No other byte changes.
    """
    turned = orientation(exif)
    try:
        block = ExifBlock(exif.removeprefix(_MARK))
    except ValueError:
        return None
    entry = block.find(FIRST, ORIENTATION)
    if entry is not None and turned > 1:
        struct.pack_into(block.order + "HHIHH", block.data, entry.at, ORIENTATION, SHORT, 1, 1, 0)
    if turned > 4:
        _swap_ratios(block, FIRST, X_RESOLUTION, Y_RESOLUTION)
        _swap_ratios(block, EXIF_POINTER, FOCAL_PLANE_X, FOCAL_PLANE_Y)
    if turned > 1:
        _turn_subject(block, turned)
    return block.finished()


def without_missing(exif: bytes) -> bytes | None:
    """Return the block, from its TIFF header on, without fields that have no value in it; None where it is damaged."""
    try:
        block = ExifBlock(exif.removeprefix(_MARK))
    except ValueError:
        return None
    block.remove_missing()
    return block.finished()


def pixels_per_mm(exif: bytes) -> tuple[float, float] | None:
    """Return the resolution across and down that a block states, or None."""
    try:
        block = ExifBlock(exif.removeprefix(_MARK))
    except ValueError:
        return None
    unit = block.find(FIRST, RESOLUTION_UNIT)
    mm = {_INCH: 25.4, _CM: 10.0}.get((block.integers(unit) or [0])[0] if unit else _INCH)
    entries = [block.find(FIRST, tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    ratios = [block.ratios(entry)[:2] for entry in entries if entry]
    if mm is None or len(ratios) < 2 or not all(ratio and all(ratio) for ratio in ratios):
        return None
    (across, a), (down, b) = ratios
    return across / a / mm, down / b / mm


def with_resolution(exif: bytes | None, resolution: tuple[float, float]) -> bytes:
    """Return a block that states a resolution in pixels per mm, across and down; without `exif` a new one.

    A block that states it already is returned as it is; into others go the three fields, in a first directory that is
    written anew at the block's end, so that everything else stays where it is.
    """
    stated = pixels_per_mm(exif) if exif else None
    if exif and stated and all(abs(a - b) <= 1e-3 * b for a, b in zip(stated, resolution, strict=True)):
        return exif
    layout, first_at = read_header(exif) if exif else (Layout("<"), 8)
    ratios = [Fraction(value * 25.4).limit_denominator(100 if value > 1 else 10_000) for value in resolution]
    data = [struct.pack(layout.order + "II", *_within_32_bit(ratio)) for ratio in ratios]
    fields = [
        Field(X_RESOLUTION, RATIONAL, 1, data[0]),
        Field(Y_RESOLUTION, RATIONAL, 1, data[1]),
        Field(RESOLUTION_UNIT, SHORT, 1, struct.pack(layout.order + "H", _INCH)),
    ]
    if not exif:
        return b"II*\0" + struct.pack("<I", 8) + pack_fields(fields, layout, 8)
    first = read_directory(exif, first_at, layout)
    stored = {entry.tag: exif[entry.at : entry.at + layout.entry_bytes] for entry in first.entries}
    exif += b"\0" * (len(exif) % 2)
    head = exif[:4] + struct.pack(layout.order + "I", len(exif))
    return head + exif[8:] + pack_fields(fields, layout, len(exif), first.following, stored)


def repacked(exif: bytes) -> bytes:
    """Return the block without gaps and without what follows its first directory; its maker note may move."""
    layout, first_at = read_header(exif)
    fields, _ = read_fields(exif, first_at, layout)
    return _block(fields, _read_below(exif, fields, layout), layout.order)


def fields_of_page(path: Path, page: int) -> list[Field]:
    """Return the fields of page `page` of a TIFF file; raise ValueError where it is damaged or has no such page."""
    with path.open("rb") as file:
        buffer = FileBytes(file)
        return read_values(buffer, directory_of_page(buffer, page)[0].entries)


def exif_from_tiff(path: Path, page: int) -> bytes | None:
    """Return an EXIF block of the fields of a TIFF page that describe the photo; None where there are none.

    Everything in the page's directory counts but fields about how its pixels are stored; see `storage_tags`.
    """
    with path.open("rb") as file:
        buffer = FileBytes(file)
        try:
            directory, layout = directory_of_page(buffer, page)
            pointers = [entry for entry in directory.entries if entry.tag in (EXIF_POINTER, GPS_POINTER)]
            kept = [entry for entry in directory.entries if not is_about_storage(entry)]
            fields = read_values(buffer, kept)
            below = _read_below(buffer, read_values(buffer, pointers), layout)
        except (ValueError, struct.error):
            return None
    says_something = below or any(field.tag not in _SAY_NOTHING for field in fields)
    return _block(fields, below, layout.order) if says_something else None


_SAY_NOTHING = frozenset((ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT))
"""Fields that every TIFF file has, and that `ImageInfo` has elsewhere."""


def append_to_tiff(path: Path, exif: bytes) -> None:
    """Add an EXIF block's fields to the first directory of a TIFF file, in place.

    A new directory is written at the file's end, and the header then points at it. Fields that the file has already,
    and those that describe how the block's own pixels were stored, stay as the file has them.

    Raises:
        ValueError: the block or the file has no TIFF header, or its first directory is damaged.
        OSError: the file cannot be written.
    """
    source, source_at = read_header(exif)
    offered = read_directory(exif, source_at, source)
    pointers = [entry for entry in offered.entries if entry.tag in (EXIF_POINTER, GPS_POINTER)]
    below = _read_below(exif, read_values(exif, pointers), source)
    with path.open("r+b") as file:
        buffer = FileBytes(file)
        own, layout = directory_of_page(buffer, 0)
        stored = {entry.tag: buffer[entry.at : entry.at + layout.entry_bytes] for entry in own.entries}
        wanted = [entry for entry in offered.entries if not is_about_storage(entry) and entry.tag not in stored]
        added = read_values(exif, wanted)
        if source.order != layout.order:
            added = [swapped(field) for field in added]
            below = {tag: [swapped(field) for field in found] for tag, found in below.items()}
        end = len(buffer) + len(buffer) % 2
        added, packed = _pack_below(added, below, layout, at=end)
        at = end + len(packed)
        file.seek(end)
        file.write(packed + pack_fields(added, layout, at, own.following, stored))
        file.seek(8 if layout.big else 4)
        file.write(struct.pack(layout.offset_form, at))


def _swap_ratios(block: ExifBlock, directory: int, across: int, down: int) -> None:
    """Exchange two fields of one ratio each, where the directory has both."""
    entries = [block.find(directory, tag) for tag in (across, down)]
    values = [block.ratios(entry) if entry else [] for entry in entries]
    if entries[0] and entries[1] and len(values[0]) == len(values[1]) == 2:
        block.overwrite(entries[0], values[1])
        block.overwrite(entries[1], values[0])


def _turn_subject(block: ExifBlock, turned: int) -> None:
    """Turn the fields of the subject's place; without the size that they refer to, take them out.

    They count from the upper left of the pixels as stored. Source: CIPA DC-008, 4.6.6, SubjectArea and SubjectLocation.
    """
    sizes = [block.find(EXIF_POINTER, tag) for tag in (PIXEL_WIDTH, PIXEL_HEIGHT)]
    width, height = ((block.integers(entry) or [0])[0] if entry else 0 for entry in sizes)
    for tag in (SUBJECT_AREA, SUBJECT_LOCATION):
        entry = block.find(EXIF_POINTER, tag)
        values = block.integers(entry) if entry else []
        if not entry or len(values) not in (2, 3, 4):
            continue
        x, y = values[:2]
        if x >= width or y >= height:
            block.remove(EXIF_POINTER, lambda entry, tag=tag: entry.tag == tag)  # type: ignore[misc]
            continue
        right, low = width - 1 - x, height - 1 - y
        place = {2: (right, y), 3: (right, low), 4: (x, low), 5: (y, x), 6: (low, x), 7: (low, right), 8: (y, right)}
        extent = values[2:][::-1] if turned > 4 else values[2:]
        block.overwrite(entry, [*place[turned], *extent])


def _within_32_bit(ratio: Fraction) -> tuple[int, int]:
    """Return numerator and denominator of a positive ratio, at least 1 and at most 2^32 - 1."""
    return max(1, min(ratio.numerator, 2**32 - 1)), ratio.denominator


def _block(fields: list[Field], below: dict[int, list[Field]], order: str) -> bytes:
    """Return an EXIF block of the fields of a first directory and the directories below it."""
    layout = Layout(order)
    fields, packed = _pack_below(fields, below, layout, at=8)
    first_at = 8 + len(packed)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", first_at) + packed + pack_fields(fields, layout, first_at)


def _read_below(buffer: Buffer, fields: list[Field], layout: Layout) -> dict[int, list[Field]]:
    """Return the directories that `fields` point at, by the pointer's tag; a damaged one is left out."""
    found: dict[int, list[Field]] = {}
    for pointer in (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER):
        within = found.get(EXIF_POINTER, []) if pointer == INTEROP_POINTER else fields
        for field in within:
            if field.tag == pointer:
                try:
                    below = read_fields(buffer, field.number(layout.order), layout)[0]
                except ValueError:
                    continue
                found[pointer] = [one for one in below if one.tag == INTEROP_POINTER or one.kind not in (IFD, IFD8)]
    return found


def _pack_below(
    fields: list[Field], below: dict[int, list[Field]], layout: Layout, at: int
) -> tuple[list[Field], bytes]:
    """Pack the directories `below` from offset `at` on; return `fields` with pointers to them, and the bytes."""
    kind = LONG8 if layout.big else LONG  # BigTIFF has another type for pointers, which few programs know
    packed = b""
    pointers: dict[int, Field] = {}
    for tag in (INTEROP_POINTER, GPS_POINTER, EXIF_POINTER):
        if not below.get(tag):
            continue
        own = [field for field in below[tag] if field.tag != INTEROP_POINTER]
        if tag == EXIF_POINTER and INTEROP_POINTER in pointers:
            own.append(pointers[INTEROP_POINTER])
        pointers[tag] = Field(tag, kind, 1, struct.pack(layout.offset_form, at + len(packed)))
        packed += pack_fields(own, layout, at + len(packed))
    others = [field for field in fields if field.tag not in (EXIF_POINTER, GPS_POINTER)]
    return [*others, *(pointers[tag] for tag in (EXIF_POINTER, GPS_POINTER) if tag in pointers)], packed
