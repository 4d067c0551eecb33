"""Adds an EXIF block to a finished AVIF file, in place, as an item of its `meta` box.

The box grows, so that everything behind it moves, and the places of all items are written anew. The block itself goes
into a box of its own at the file's end.

Source of the layout: ISO/IEC 14496-12, 8.11 (meta, iloc, iinf, infe, iref, pitm); ISO/IEC 23008-12, annex A.2.1
(ExifDataBlock).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from realesr.images.metadata.inserting import insert_bytes

_MOST_META_BYTES = 2**26
_MOST_BOXES = 4096
_IN_FILE = 0
"""Construction method of an item whose places count from the start of the file."""


@dataclass
class _Location:
    """Where an item lies: extents of offset and length."""

    item: int
    method: int
    extents: list[tuple[int, int]]


def add_exif_to_avif(path: Path, exif: bytes) -> None:
    """Add an EXIF block to an AVIF file that has none yet.

    Raises:
        ValueError: the file is no AVIF of the form that libheif writes.
        OSError: it cannot be written.
    """
    with path.open("r+b") as file:
        at, size = _find_meta(file)
        file.seek(at)
        boxes = list(_boxes(file.read(size), 12))
        end = file.seek(0, 2)
        by_kind = {kind: box for kind, box in boxes}
        if not {b"pitm", b"iloc", b"iinf"} <= set(by_kind):
            raise ValueError(f"{path} has no items")
        locations = _read_locations(by_kind[b"iloc"])
        item = 1 + max((location.item for location in locations), default=0)
        payload = b"\0\0\0\0" + exif  # the TIFF header begins right behind this number
        locations.append(_Location(item, _IN_FILE, [(end + 8, len(payload))]))
        changed = {
            b"iinf": _with_exif_item(by_kind[b"iinf"], item),
            b"iref": _with_reference(by_kind.get(b"iref"), item, _primary_item(by_kind[b"pitm"])),
        }
        if b"iref" not in by_kind:
            boxes.append((b"iref", b""))
        size_of_places = len(_packed_locations(locations, 0, 0))
        rest = sum(len(changed.get(kind, box)) for kind, box in boxes if kind != b"iloc")
        growth = 12 + rest + size_of_places - size
        if growth < 0:
            raise ValueError(f"the meta box of {path} would shrink")
        changed[b"iloc"] = _packed_locations(locations, at + size, growth)
        meta = b"".join(changed.get(kind, box) for kind, box in boxes)
        insert_bytes(file, at, struct.pack(">I4sI", 12 + len(meta), b"meta", 0) + meta, instead_of=size)
        file.seek(0, 2)
        file.write(struct.pack(">I4s", 8 + len(payload), b"mdat") + payload)


def _find_meta(file: BinaryIO) -> tuple[int, int]:
    """Return position and size of the file's `meta` box; raise ValueError where there is none."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        if size < 8:
            break  # a box of 64-bit length, or up to the file's end: libheif writes neither before `meta`
        if head[4:] == b"meta" and size <= _MOST_META_BYTES:
            return at, size
        at += size
    raise ValueError("the file has no meta box")


def _boxes(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and bytes, with the header, of the boxes from `at` on."""
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8 or at + size > len(data):
            raise ValueError(f"a box of {size} bytes at {at}")
        yield data[at + 4 : at + 8], data[at : at + size]
        at += size


def _primary_item(pitm: bytes) -> int:
    """Return the primary item's number."""
    return int.from_bytes(pitm[12 : 16 if pitm[8] else 14], "big")


def _with_exif_item(iinf: bytes, item: int) -> bytes:
    """Return the box of items with one more, of type Exif, version 2 of its entry."""
    wide = iinf[8] > 0
    start = 16 if wide else 14
    count = int.from_bytes(iinf[12:start], "big") + 1
    entry = struct.pack(">I4sIHH4sB", 21, b"infe", 2 << 24 | 1, item, 0, b"Exif", 0)  # flag 1: hidden
    body = iinf[8:12] + count.to_bytes(start - 12, "big") + iinf[start:] + entry
    return struct.pack(">I4s", 8 + len(body), b"iinf") + body


def _with_reference(iref: bytes | None, item: int, primary: int) -> bytes:
    """Return the box of references with one more: the item describes the content of the primary one."""
    body = iref[8:] if iref else b"\0\0\0\0"
    number = "I" if body[0] else "H"
    body += struct.pack(f">I4s{number}H{number}", 8 + (10 if body[0] else 6), b"cdsc", item, 1, primary)
    return struct.pack(">I4s", 8 + len(body), b"iref") + body


def _read_locations(iloc: bytes) -> list[_Location]:
    """Return the places of all items; raise ValueError where the box ends early."""
    version = iloc[8]
    offset_bytes, length_bytes, base_bytes, index_bytes = (
        iloc[12] >> 4,
        iloc[12] & 15,
        iloc[13] >> 4,
        iloc[13] & 15 if version else 0,
    )
    at = 14

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(iloc):
            raise ValueError("the box of item locations ends early")
        return int.from_bytes(iloc[at - size : at], "big")

    locations = []
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else _IN_FILE
        number(2)  # data reference: this file
        base = number(base_bytes)
        extents = []
        for _ in range(number(2)):
            number(index_bytes)
            offset = base + number(offset_bytes)
            extents.append((offset, number(length_bytes)))
        locations.append(_Location(item, method, extents))
    return locations


def _packed_locations(locations: list[_Location], moved_from: int, growth: int) -> bytes:
    """Return the box of item locations; places in the file from `moved_from` on have moved back by `growth`."""
    body = struct.pack(">IBBH", 1 << 24, 0x44, 0, len(locations))
    for location in locations:
        body += struct.pack(">HHHH", location.item, location.method, 0, len(location.extents))
        for offset, length in location.extents:
            moved = growth if location.method == _IN_FILE and offset >= moved_from else 0
            body += struct.pack(">II", offset + moved, length)
    return struct.pack(">I4s", 8 + len(body), b"iloc") + body
