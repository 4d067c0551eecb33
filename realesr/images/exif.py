"""Reads and writes EXIF blocks and TIFF directories, field by field. Uses no libraries.

An EXIF block is a TIFF file without pixels: directories of fields, two of them (Exif and GPS) reached by pointers.
libvips keeps EXIF blocks in every format but TIFF, whose fields it neither reads nor writes; here they are read from
a TIFF file and appended to one.

Source of the layout: TIFF 6.0, part 1, section 2; BigTIFF by libtiff; tags: CIPA DC-008 (Exif 3.0), 4.6.
"""

import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 0x8769, 0x8825, 0xA005
ORIENTATION, PIXEL_WIDTH, PIXEL_HEIGHT = 0x0112, 0xA002, 0xA003
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16

TEXT_TAGS = frozenset(
    (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, *range(0x9C9B, 0x9CA0))
)
"""Fields of the first directory that say something about the photo rather than about how its pixels are stored:
description, make, model, software, date, artist, host, rating, copyright and the fields that Windows writes."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SWAPPED = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_FIELDS = 4096
_MOST_BYTES = 2**24

Buffer = bytes | mmap.mmap


@dataclass(frozen=True)
class Layout:
    """Byte order and offset size of a TIFF file or EXIF block."""

    order: str
    """ "<" or ">", as in `struct`."""
    big: bool = False
    """Whether it is BigTIFF, with offsets of 8 bytes."""

    @property
    def offset_bytes(self) -> int:
        """Return the size of an offset, and the largest size of a value that is stored in its field."""
        return 8 if self.big else 4


@dataclass(frozen=True)
class Field:
    """One field of a directory; `data` has the directory's byte order."""

    tag: int
    kind: int
    count: int
    data: bytes

    def number(self, order: str) -> int:
        """Return the field's first value, where it is an integer."""
        return int.from_bytes(self.data[: _SIZES[self.kind]], "little" if order == "<" else "big")


def read_header(buffer: Buffer) -> tuple[Layout, int]:
    """Return the layout and the offset of the first directory; raise ValueError where there is no TIFF header."""
    mark = bytes(buffer[:4])
    layouts = {b"II*\0": Layout("<"), b"MM\0*": Layout(">"), b"II+\0": Layout("<", True), b"MM\0+": Layout(">", True)}
    if mark not in layouts:
        raise ValueError("no TIFF header")
    layout = layouts[mark]
    return layout, _unpack(buffer, layout.order + ("Q" if layout.big else "I"), 8 if layout.big else 4)[0]


def read_fields(buffer: Buffer, offset: int, layout: Layout) -> tuple[list[Field], int]:
    """Return the fields of the directory at `offset`, and the offset of the next directory (0: none).

    Fields that point outside the buffer are left out: they have no value.

    Raises:
        ValueError: the directory itself lies outside the buffer.
    """
    count_form, entry_form = ("Q", "HHQ") if layout.big else ("H", "HHI")
    head_bytes = struct.calcsize(layout.order + entry_form)
    entry_bytes = head_bytes + layout.offset_bytes
    count = _unpack(buffer, layout.order + count_form, offset)[0]
    if count > _MOST_FIELDS:
        raise ValueError(f"a directory of {count} fields")
    start = offset + struct.calcsize(layout.order + count_form)
    fields = []
    for index in range(count):
        at = start + index * entry_bytes
        tag, kind, values = _unpack(buffer, layout.order + entry_form, at)
        inline = bytes(buffer[at + head_bytes : at + entry_bytes])
        size = _SIZES.get(kind, 0) * values
        place = _offset(inline, layout)
        data = inline[:size] if size <= layout.offset_bytes else bytes(buffer[place : place + min(size, _MOST_BYTES)])
        if size and len(data) == size:
            fields.append(Field(tag, kind, values, data))
    end = start + count * entry_bytes
    following = buffer[end : end + layout.offset_bytes]
    return fields, _offset(bytes(following), layout) if len(following) == layout.offset_bytes else 0


def pack_fields(fields: Iterable[Field], layout: Layout, at: int, following: int = 0) -> bytes:
    """Return a directory as it is stored at offset `at`, followed by the values that do not fit into their fields.

    `following` is the next directory's offset.
    """
    ordered = sorted(fields, key=lambda field: field.tag)
    count_form, entry_form, offset_form = ("Q", "HHQ", "Q") if layout.big else ("H", "HHI", "I")
    head = struct.pack(layout.order + count_form, len(ordered))
    entry_bytes = struct.calcsize(layout.order + entry_form) + layout.offset_bytes
    values_at = at + len(head) + len(ordered) * entry_bytes + layout.offset_bytes
    entries, values = b"", b""
    for field in ordered:
        stored = field.data.ljust(layout.offset_bytes, b"\0")
        if len(field.data) > layout.offset_bytes:
            stored = struct.pack(layout.order + offset_form, values_at + len(values))
            values += field.data + b"\0" * (len(field.data) % 2)
        entries += struct.pack(layout.order + entry_form, field.tag, field.kind, field.count) + stored
    return head + entries + struct.pack(layout.order + offset_form, following) + values


def upright(exif: bytes) -> bytes | None:
    """Return the block with its orientation set to 1 and no other byte changed; None where it is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        layout, offset = read_header(exif)
        read_fields(exif, offset, layout)
        count = _unpack(exif, layout.order + "H", offset)[0]
        patched = bytearray(exif)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            if _unpack(exif, layout.order + "H", entry)[0] == ORIENTATION:
                struct.pack_into(layout.order + "HHIHH", patched, entry, ORIENTATION, SHORT, 1, 1, 0)
    except (ValueError, struct.error):
        return None
    return None if layout.big else bytes(patched)


def pixels_per_mm(exif: bytes) -> tuple[float, float] | None:
    """Return the resolution across and down that a block states, or None."""
    try:
        layout, offset = read_header(exif)
        fields = {field.tag: field for field in read_fields(exif, offset, layout)[0]}
        unit = fields[RESOLUTION_UNIT].number(layout.order) if RESOLUTION_UNIT in fields else 2
        mm = {2: 25.4, 3: 10.0}[unit]
        ratios = [struct.unpack(layout.order + "II", fields[tag].data[:8]) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    except (ValueError, KeyError, struct.error):
        return None
    if not all(above and below for above, below in ratios):
        return None
    (across, a), (down, b) = ratios
    return across / a / mm, down / b / mm


def fields_of_page(path: Path, page: int) -> list[Field]:
    """Return the fields of page `page` of a TIFF file; raise ValueError where it is damaged or has no such page."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        layout, offset = read_header(buffer)
        for _ in range(page):
            _, offset = read_fields(buffer, offset, layout)
        return read_fields(buffer, offset, layout)[0]


def exif_from_tiff(path: Path, page: int) -> bytes | None:
    """Return an EXIF block of the fields of a TIFF page that describe the photo; None where there are none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        try:
            layout, offset = read_header(buffer)
            for _ in range(page):
                _, offset = read_fields(buffer, offset, layout)
            fields, _ = read_fields(buffer, offset, layout)
            kept = [field for field in fields if field.tag in TEXT_TAGS]
            plain = Layout(layout.order)
            kept, below = _pack_below(kept, _read_below(buffer, fields, layout), plain, at=8)
        except (ValueError, struct.error):
            return None
    if not kept:
        return None
    mark = b"II*\0" if plain.order == "<" else b"MM\0*"
    first = 8 + len(below)
    return mark + struct.pack(plain.order + "I", first) + below + pack_fields(kept, plain, first)


def append_to_tiff(path: Path, exif: bytes, width_px: int, height_px: int) -> None:
    """Add an EXIF block's fields to the first directory of a TIFF file, in place, with the sizes of the file.

    A new directory is written at the file's end, and the header then points at it. Fields that the file has already,
    and those that describe how the block's own pixels were stored, stay as the file has them.
    """
    source, source_at = read_header(exif)
    offered, _ = read_fields(exif, source_at, source)
    below = _read_below(exif, offered, source)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        layout, first = read_header(buffer)
        fields, following = read_fields(buffer, first, layout)
        end = len(buffer) + len(buffer) % 2
    present = {field.tag for field in fields}
    added = [f for f in offered if f.tag in TEXT_TAGS and f.tag not in present]
    below = {tag: _resized(found, source.order, width_px, height_px) for tag, found in below.items()}
    if source.order != layout.order:
        added = [_swapped(field) for field in added]
        below = {tag: [_swapped(field) for field in found] for tag, found in below.items()}
    added, packed = _pack_below(added, below, layout, at=end)
    at = end + len(packed)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(packed + pack_fields([*fields, *added], layout, at, following))
        file.seek(8 if layout.big else 4)
        file.write(struct.pack(layout.order + ("Q" if layout.big else "I"), at))


def _read_below(buffer: Buffer, fields: list[Field], layout: Layout) -> dict[int, list[Field]]:
    """Return the directories that `fields` point at, by the pointer's tag; a damaged one is left out."""
    found: dict[int, list[Field]] = {}
    for pointer in (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER):
        within = found.get(EXIF_POINTER, []) if pointer == INTEROP_POINTER else fields
        for field in within:
            if field.tag == pointer:
                try:
                    found[pointer] = read_fields(buffer, field.number(layout.order), layout)[0]
                except (ValueError, struct.error):
                    continue
    return found


def _pack_below(
    fields: list[Field], below: dict[int, list[Field]], layout: Layout, at: int
) -> tuple[list[Field], bytes]:
    """Pack the directories `below` from offset `at` on; return `fields` with pointers to them, and the bytes."""
    kind = LONG8 if layout.big else LONG  # BigTIFF has another type for pointers, which few programs know
    form = layout.order + ("Q" if layout.big else "I")
    packed = b""
    pointers: dict[int, Field] = {}
    for tag in (INTEROP_POINTER, GPS_POINTER, EXIF_POINTER):
        if not below.get(tag):
            continue
        own = [field for field in below[tag] if field.tag != INTEROP_POINTER]
        if tag == EXIF_POINTER and INTEROP_POINTER in pointers:
            own.append(pointers[INTEROP_POINTER])
        pointers[tag] = Field(tag, kind, 1, struct.pack(form, at + len(packed)))
        packed += pack_fields(own, layout, at + len(packed))
    return [*fields, *(pointers[tag] for tag in (EXIF_POINTER, GPS_POINTER) if tag in pointers)], packed


def _resized(fields: list[Field], order: str, width_px: int, height_px: int) -> list[Field]:
    """Return the fields with the pixel sizes of the new image."""
    sizes = {PIXEL_WIDTH: width_px, PIXEL_HEIGHT: height_px}
    return [
        replace(f, kind=LONG, count=1, data=struct.pack(order + "I", sizes[f.tag])) if f.tag in sizes else f
        for f in fields
    ]


def _swapped(field: Field) -> Field:
    """Return the field in the other byte order."""
    unit = _SWAPPED.get(field.kind, 1)
    parts = (field.data[i : i + unit][::-1] for i in range(0, len(field.data), unit))
    return replace(field, data=b"".join(parts))


def _offset(data: bytes, layout: Layout) -> int:
    """Return the offset that is stored in `data`."""
    return int.from_bytes(data, "little" if layout.order == "<" else "big")


def _unpack(buffer: Buffer, form: str, offset: int) -> tuple[int, ...]:
    """Unpack integers at `offset`; raise ValueError outside the buffer."""
    size = struct.calcsize(form)
    part = bytes(buffer[offset : offset + size])
    if len(part) != size:
        raise ValueError(f"offset {offset} lies outside")
    return struct.unpack(form, part)
