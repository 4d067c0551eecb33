"""Reads the boxes of a HEIF file (AVIF, HEIC) that say which images it has, and how they belong together.

No pixel is decoded here. Every count, size and nesting is bounded by the file's own length or by a constant.

Sources: ISO/IEC 14496-12:2022, 4.2 (boxes), 8.11 (meta, iloc, pitm, iinf, iref, idat); ISO/IEC 23008-12:2022, 9.3
(iprp).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from realesr.errors import InputError

_MOST_BOXES = 4096
"""Most boxes within one; libheif allows 1000 items by default."""
_MOST_EXTENTS, _MOST_TARGETS = 100_000, 16_384
_HIDDEN = 1
FULL_RANGE = 0x80
"""Flag in the last byte of an nclx colour description. Source: ISO/IEC 14496-12, 12.1.5."""


@dataclass(kw_only=True)
class Item:
    """One item of a file: an image, a part of one, or metadata."""

    id: int
    kind: bytes
    """Item type: b"av01", b"grid", b"Exif", ..."""
    flags_at: int
    """Offset in the file of the byte that says whether the item is hidden."""
    is_hidden: bool
    content_type: bytes
    """MIME type of items of type b"mime"."""
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Type and content of each property, in the item's order."""
    associations_at: list[tuple[int, int]] = field(default_factory=list)
    """Offset and size in bytes of each property's number in the file, in the same order."""
    extents: list[tuple[int, int]] | None = None
    """Offset in the file and length in bytes of each piece of data; length 0 reaches to the file's end.

    None where the item has none, or in a place that is not read: other items or files.
    """

    def property(self, kind: bytes) -> bytes | None:
        """Return the content of the first property of a type, or None."""
        return next((content for name, content in self.properties if name == kind), None)


@dataclass(kw_only=True)
class Container:
    """A HEIF file, read whole, and its items."""

    file: bytes
    primary: int = 0
    """ID of the item that the file presents; 0 where it names none."""
    items: dict[int, Item] = field(default_factory=dict)
    references: list[tuple[bytes, int, tuple[int, ...]]] = field(default_factory=list)
    """Type, ID of the item that refers, and IDs of the items that it refers to."""
    primary_at: tuple[int, int] = (0, 0)
    """Offset and size in bytes of the primary item's ID."""
    reference_kinds_at: list[int] = field(default_factory=list)
    """Offset of the type of each reference."""
    range_flags_at: list[int] = field(default_factory=list)
    """Offset of the byte that says limited or full range in each nclx colour description."""

    def targets(self, kind: bytes, source: int) -> tuple[int, ...]:
        """Return the IDs of the items that item `source` refers to with references of type `kind`."""
        found = (to for name, origin, to in self.references if (name, origin) == (kind, source))
        return tuple(target for to in found for target in to)

    def sources(self, kind: bytes, target: int) -> tuple[int, ...]:
        """Return the IDs of the items that refer to item `target` with references of type `kind`."""
        return tuple(origin for name, origin, to in self.references if name == kind and target in to)

    def lacks_data(self, item: Item) -> bool:
        """Return whether the file ends before the data of an item do."""
        return any(at + size > len(self.file) or at >= len(self.file) for at, size in item.extents or ())

    def data(self, item: Item) -> bytes:
        """Return the data of an item; what the file has lost is missing."""
        return b"".join(self.file[at : at + size if size else None] for at, size in item.extents or ())


def read_container(path: Path) -> Container:
    """Read the items of a HEIF file.

    Raises:
        InputError: the boxes are damaged, or there are none of images.
    """
    container = Container(file=path.read_bytes())
    try:
        meta = _first(_boxes(container.file, 0, len(container.file)), b"meta")
        if meta is not None:
            _read_meta(container, *meta)
    except (ValueError, struct.error) as error:
        raise InputError(f"{path} is damaged, or truncated ({error}); get a whole copy") from error
    if meta is None:
        raise InputError(
            f"{path} has no still image: expected a HEIF file with a `meta` box, not only video or nothing"
        )
    return container


def file_of_one(
    container: Container, item: Item, *, with_auxiliary: bool, without: tuple[bytes, ...], is_full_range: bool
) -> bytes:
    """Return the file changed for a decoder, so that `item` is the image that it presents.

    Args:
        container: the file.
        item: image that becomes the primary one.
        with_auxiliary: whether it keeps its alpha, and other auxiliary images.
        without: types of properties that the item and its auxiliary images lose.
        is_full_range: whether all colour descriptions are marked as of full range, so that nothing is expanded.

    Raises:
        ValueError: the file cannot present the item: its field for the primary one is too small.
    """
    file = bytearray(container.file)
    at, size = container.primary_at
    if not size or item.id >= 1 << 8 * size:
        raise ValueError(f"no room for item {item.id} as the primary one")
    file[at : at + size] = item.id.to_bytes(size, "big")
    file[item.flags_at] &= ~_HIDDEN
    if not with_auxiliary:
        for place in container.reference_kinds_at:
            if bytes(file[place : place + 4]) in (b"auxl", b"prem"):
                file[place : place + 4] = b"none"
    auxiliary = (container.items.get(source) for source in container.sources(b"auxl", item.id))
    for each in (item, *filter(None, auxiliary)):
        for (kind, _), (place, entry_bytes) in zip(each.properties, each.associations_at, strict=True):
            if kind in without:
                file[place : place + entry_bytes] = bytes(entry_bytes)  # 0 stands for no property
    for place in container.range_flags_at if is_full_range else ():
        file[place] |= FULL_RANGE
    return bytes(file)


def _boxes(file: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each box between two offsets, and where its content begins and ends."""
    for _ in range(_MOST_BOXES):
        if end - start < 8:
            return
        size, kind = struct.unpack_from(">I4s", file, start)
        content = start + 8
        if size == 1:
            size, content = struct.unpack_from(">Q", file, content)[0], start + 16
        elif size == 0:
            size = end - start
        if size < content - start:
            raise ValueError(f"a box of {size} bytes")
        if start + size > end:
            raise ValueError(f"box {kind!r} reaches {start + size - end} bytes too far")
        yield kind, content, start + size
        start += size
    raise ValueError(f"more than {_MOST_BOXES} boxes")


def _first(boxes: Iterator[tuple[bytes, int, int]], kind: bytes) -> tuple[int, int] | None:
    """Return where the content of the first box of a type begins and ends."""
    return next(((start, end) for name, start, end in boxes if name == kind), None)


class _Fields:
    """Fields of a full box, read one after the other; version and flags first."""

    def __init__(self, file: bytes, start: int, end: int) -> None:
        self._file, self._end = file, end
        self.at = start
        self.version = self.number(1)
        self.flags = self.number(3)

    def number(self, size: int) -> int:
        """Return the next big-endian number of `size` bytes; size 0 is 0."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes; raise ValueError beyond the box."""
        if self.at + size > self._end:
            raise ValueError("a box ends before its fields do")
        self.at += size
        return self._file[self.at - size : self.at]

    def text(self) -> bytes:
        """Return the bytes up to the next zero, or the box's end."""
        end = self._file.find(b"\0", self.at, self._end)
        end = self._end if end < 0 else end
        text = self._file[self.at : end]
        self.at = min(end + 1, self._end)
        return text


def _read_meta(container: Container, start: int, end: int) -> None:
    """Read the boxes in a meta box into the container: items first, then what refers to them."""
    boxes = {kind: (at, stop) for kind, at, stop in _boxes(container.file, start + 4, end)}
    idat = boxes.get(b"idat", (0, 0))
    if b"pitm" in boxes:
        fields = _Fields(container.file, *boxes[b"pitm"])
        size = 2 if fields.version == 0 else 4
        container.primary_at = fields.at, size
        container.primary = fields.number(size)
    if b"iinf" in boxes:
        _read_items(container, *boxes[b"iinf"])
    if b"iloc" in boxes:
        _read_places(container, _Fields(container.file, *boxes[b"iloc"]), idat)
    if b"iref" in boxes:
        _read_references(container, *boxes[b"iref"])
    if b"iprp" in boxes:
        _read_properties(container, *boxes[b"iprp"])


def _read_items(container: Container, start: int, end: int) -> None:
    """Read the item information box. Source: ISO/IEC 14496-12, 8.11.6."""
    head = _Fields(container.file, start, end)
    head.number(2 if head.version == 0 else 4)
    for kind, at, stop in _boxes(container.file, head.at, end):
        fields = _Fields(container.file, at, stop)
        if kind != b"infe" or fields.version < 2:
            continue
        item_id = fields.number(2 if fields.version == 2 else 4)
        fields.number(2)
        item_kind = fields.take(4)
        fields.text()
        container.items[item_id] = Item(
            id=item_id,
            kind=item_kind,
            flags_at=at + 3,
            is_hidden=bool(fields.flags & _HIDDEN),
            content_type=fields.text() if item_kind == b"mime" else b"",
        )


def _read_places(container: Container, fields: _Fields, idat: tuple[int, int]) -> None:
    """Read the item location box. Source: ISO/IEC 14496-12, 8.11.3."""
    sizes = fields.number(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    left = _MOST_EXTENTS
    for _ in range(fields.number(2 if fields.version < 2 else 4)):
        item_id = fields.number(2 if fields.version < 2 else 4)
        method = fields.number(2) & 15 if fields.version > 0 else 0
        is_elsewhere = fields.number(2) != 0
        base = fields.number(base_bytes)
        count = fields.number(2)
        left -= count
        if left < 0:
            raise ValueError(f"more than {_MOST_EXTENTS} pieces of data")
        extents = []
        for _ in range(count):
            fields.number(index_bytes if fields.version > 0 else 0)
            at, size = base + fields.number(offset_bytes), fields.number(length_bytes)
            if method == 1:
                at, size = at + idat[0], size or max(0, idat[1] - idat[0] - at)
                if at + size > idat[1]:
                    raise ValueError("data beyond the idat box")
            extents.append((at, size))
        if item_id in container.items and not is_elsewhere and method < 2:
            container.items[item_id].extents = extents


def _read_references(container: Container, start: int, end: int) -> None:
    """Read the item reference box. Source: ISO/IEC 14496-12, 8.11.12."""
    head = _Fields(container.file, start, end)
    size = 2 if head.version == 0 else 4
    left = _MOST_TARGETS
    for kind, at, stop in _boxes(container.file, head.at, end):
        # These boxes are no full boxes: their fields begin at once.
        numbers = container.file[at:stop]
        source, count = int.from_bytes(numbers[:size], "big"), int.from_bytes(numbers[size : size + 2], "big")
        targets = numbers[size + 2 : size + 2 + count * size]
        if len(targets) < count * size:
            raise ValueError("a reference ends before its items do")
        left -= count
        if left < 0:
            raise ValueError(f"more than {_MOST_TARGETS} items are referred to")
        ids = tuple(int.from_bytes(targets[i : i + size], "big") for i in range(0, len(targets), size))
        container.references.append((kind, source, ids))
        container.reference_kinds_at.append(at - 4)


def _read_properties(container: Container, start: int, end: int) -> None:
    """Read the item properties box. Source: ISO/IEC 23008-12, 9.3."""
    known: list[tuple[bytes, bytes]] = []
    for kind, at, stop in _boxes(container.file, start, end):
        if kind == b"ipco":
            for name, a, b in _boxes(container.file, at, stop):
                known.append((name, container.file[a:b]))
                if name == b"colr" and container.file[a : a + 4] == b"nclx" and b - a >= 11:
                    container.range_flags_at.append(a + 10)
        elif kind == b"ipma":
            fields = _Fields(container.file, at, stop)
            index_bytes = 2 if fields.flags & 1 else 1
            for _ in range(fields.number(4)):
                item_id = fields.number(2 if fields.version < 1 else 4)
                for _ in range(fields.number(1)):
                    index = fields.number(index_bytes) & (0x7FFF if index_bytes == 2 else 0x7F)
                    if index and item_id in container.items:
                        if index > len(known):
                            raise ValueError(f"property {index} of {len(known)}")
                        item = container.items[item_id]
                        item.properties.append(known[index - 1])
                        item.associations_at.append((fields.at - index_bytes, index_bytes))
