"""Reads and packs directories of TIFF files and EXIF blocks, field by field. Uses no libraries.

A directory is a list of entries; a value that does not fit into its entry lies elsewhere, at an offset from the start
of the file or block. Files are read through `FileBytes`: a mapped file that is cut while it is read ends the process.

Bounds: 4,096 entries a directory, 16 MB a value; the values of one directory together as many bytes as the file has,
and at most 64 MB, so that fields that point at the same bytes cannot multiply them.

Source of the layout: TIFF 6.0, part 1, section 2; BigTIFF by libtiff.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

SHORT, LONG, RATIONAL, IFD, LONG8, IFD8 = 3, 4, 5, 13, 16, 18

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
"""Bytes of one value by its type; 129 is text in UTF-8, of Exif 3.0."""

_SWAPPED = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_ENTRIES = 4096
_MOST_BYTES = 2**24
_MOST_BYTES_TOGETHER = 2**26


class Buffer(Protocol):
    """Bytes that are sliced: a block in memory or a file."""

    def __getitem__(self, part: slice, /) -> bytes | bytearray: ...

    def __len__(self) -> int: ...


class FileBytes:
    """An open file that is sliced like bytes; every slice is read from it, and is short where the file ends."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = file.seek(0, 2)

    def __getitem__(self, part: slice, /) -> bytes:
        start = min(part.start or 0, self._length)
        stop = self._length if part.stop is None else min(part.stop, self._length)
        self._file.seek(start)
        return self._file.read(max(0, stop - start))

    def __len__(self) -> int:
        return self._length


@dataclass(frozen=True)
class Layout:
    """Byte order and offset size of a TIFF file or EXIF block."""

    order: str
    """ "<" or ">", as in `struct`."""
    big: bool = False
    """Whether it is BigTIFF, with offsets of 8 bytes."""

    @property
    def offset_bytes(self) -> int:
        """Return the size of an offset, and the largest size of a value that is stored in its entry."""
        return 8 if self.big else 4

    @property
    def offset_form(self) -> str:
        """Return the form of an offset, for `struct`."""
        return self.order + ("Q" if self.big else "I")

    @property
    def count_form(self) -> str:
        """Return the form of a directory's number of entries, for `struct`."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry_form(self) -> str:
        """Return the form of an entry without its value: tag, type, count."""
        return self.order + ("HHQ" if self.big else "HHI")

    @property
    def entry_bytes(self) -> int:
        """Return the size of an entry."""
        return struct.calcsize(self.entry_form) + self.offset_bytes


@dataclass(frozen=True)
class Entry:
    """One entry of a directory: what it says of its value, and where that lies."""

    tag: int
    kind: int
    count: int
    at: int
    """Position of the entry itself."""
    place: int
    """Position of its value: in the entry, or where the entry points."""
    size: int
    """Bytes of the value; 0 where the type is not known."""


@dataclass(frozen=True)
class Directory:
    """A directory's entries, not their values."""

    at: int
    entries: tuple[Entry, ...]
    following_at: int
    """Position of the offset of the next directory."""
    following: int
    """That offset; 0 where this is the last one."""

    def find(self, tag: int) -> Entry | None:
        """Return the first entry of a tag, or None."""
        return next((entry for entry in self.entries if entry.tag == tag), None)


@dataclass(frozen=True)
class Field:
    """One field of a directory; `data` has the directory's byte order."""

    tag: int
    kind: int
    count: int
    data: bytes

    def number(self, order: str) -> int:
        """Return the field's first value, where it is an integer."""
        return int.from_bytes(self.data[: SIZES[self.kind]], "little" if order == "<" else "big")


def read_header(buffer: Buffer) -> tuple[Layout, int]:
    """Return the layout and the offset of the first directory; raise ValueError where there is no TIFF header."""
    mark = bytes(buffer[0:4])
    layouts = {b"II*\0": Layout("<"), b"MM\0*": Layout(">"), b"II+\0": Layout("<", True), b"MM\0+": Layout(">", True)}
    if mark not in layouts:
        raise ValueError("no TIFF header")
    layout = layouts[mark]
    at = 8 if layout.big else 4
    return layout, int(unpack(buffer, layout.offset_form, at)[0])


def read_directory(buffer: Buffer, offset: int, layout: Layout) -> Directory:
    """Return the directory at `offset`; raise ValueError where it lies outside the buffer or is too long."""
    count = int(unpack(buffer, layout.count_form, offset)[0])
    if count > _MOST_ENTRIES:
        raise ValueError(f"a directory of {count} entries, expected at most {_MOST_ENTRIES}")
    start = offset + struct.calcsize(layout.count_form)
    following_at = start + count * layout.entry_bytes
    stored = bytes(buffer[start : following_at + layout.offset_bytes])
    if len(stored) < count * layout.entry_bytes:
        raise ValueError(f"the directory at {offset} ends outside")
    entries = []
    inline_at = layout.entry_bytes - layout.offset_bytes
    for index in range(0, count * layout.entry_bytes, layout.entry_bytes):
        tag, kind, values = struct.unpack_from(layout.entry_form, stored, index)
        size = SIZES.get(kind, 0) * values
        place = start + index + inline_at
        if size > layout.offset_bytes:
            place = struct.unpack_from(layout.offset_form, stored, index + inline_at)[0]
        entries.append(Entry(tag, kind, values, start + index, place, size))
    rest = stored[count * layout.entry_bytes :]
    following = struct.unpack(layout.offset_form, rest)[0] if len(rest) == layout.offset_bytes else 0
    return Directory(offset, tuple(entries), following_at, following)


def directory_of_page(buffer: Buffer, page: int) -> tuple[Directory, Layout]:
    """Return the directory of page `page` of a TIFF file; raise ValueError where it is damaged or has no such page."""
    layout, offset = read_header(buffer)
    for _ in range(page):
        offset = read_directory(buffer, offset, layout).following
        if not offset:
            raise ValueError(f"no page {page}")
    return read_directory(buffer, offset, layout), layout


def read_values(buffer: Buffer, entries: Iterable[Entry]) -> list[Field]:
    """Return the fields of a directory's entries.

    Entries that have no value are left out: of an unknown type, pointing outside the buffer, or beyond the bounds.
    """
    left_bytes = min(len(buffer), _MOST_BYTES_TOGETHER)
    fields = []
    for entry in entries:
        if 0 < entry.size <= min(left_bytes, _MOST_BYTES):
            data = bytes(buffer[entry.place : entry.place + entry.size])
            if len(data) == entry.size:
                fields.append(Field(entry.tag, entry.kind, entry.count, data))
                left_bytes -= entry.size
    return fields


def read_fields(buffer: Buffer, offset: int, layout: Layout) -> tuple[list[Field], int]:
    """Return the fields of the directory at `offset`, and the offset of the next directory (0: none).

    Raises:
        ValueError: the directory itself lies outside the buffer.
    """
    directory = read_directory(buffer, offset, layout)
    return read_values(buffer, directory.entries), directory.following


def pack_fields(
    fields: Iterable[Field], layout: Layout, at: int, following: int = 0, stored: Mapping[int, bytes] | None = None
) -> bytes:
    """Return a directory as it is stored at offset `at`, followed by the values that do not fit into their entries.

    Args:
        fields: the fields, in any order.
        layout: byte order and offset size.
        at: offset of the directory.
        following: the next directory's offset.
        stored: entries by tag that are packed as they are, because their values lie in the file already.
    """
    entries = dict(stored or {})
    ordered = sorted(fields, key=lambda field: field.tag)
    total = len(ordered) + len(entries)
    head = struct.pack(layout.count_form, total)
    values_at = at + len(head) + total * layout.entry_bytes + layout.offset_bytes
    values: list[bytes] = []
    for field in ordered:
        inline = field.data.ljust(layout.offset_bytes, b"\0")
        if len(field.data) > layout.offset_bytes:
            inline = struct.pack(layout.offset_form, values_at)
            values.append(field.data + b"\0" * (len(field.data) % 2))
            values_at += len(values[-1])
        entries[field.tag] = struct.pack(layout.entry_form, field.tag, field.kind, field.count) + inline
    packed = b"".join(entries[tag] for tag in sorted(entries))
    missing = total - len(entries)  # tags that occur twice
    if missing:
        head = struct.pack(layout.count_form, len(entries))
    tail = struct.pack(layout.offset_form, following) + b"\0" * (missing * layout.entry_bytes)
    return head + packed + tail + b"".join(values)


def swapped(field: Field) -> Field:
    """Return the field in the other byte order."""
    unit = _SWAPPED.get(field.kind, 1)
    if unit == 1:
        return field
    columns = [field.data[place::unit] for place in range(unit)]
    data = bytearray(len(field.data))
    for place, column in enumerate(reversed(columns)):
        data[place::unit] = column
    return replace(field, data=bytes(data))


def unpack(buffer: Buffer, form: str, offset: int) -> tuple[int, ...]:
    """Unpack integers at `offset`; raise ValueError outside the buffer."""
    size = struct.calcsize(form)
    part = bytes(buffer[offset : offset + size])
    if len(part) != size:
        raise ValueError(f"offset {offset} lies outside")
    return struct.unpack(form, part)
