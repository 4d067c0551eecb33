"""Reads the directory of a zip of stored entries, such as `torch.save` writes, without copying an entry.

A crafted directory can claim more than the file holds: entries that overlap, sizes beyond its end, millions of names.
Here every entry is a slice of the file, none overlaps another, so together they hold no more than the file does.
Layout: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14 to 4.3.16 (its end), 4.5.3.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from realesr.errors import ModelError

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")

_STORED, _ENCRYPTED_FLAG, _UTF8_FLAG = 0, 1 << 0, 1 << 11
_IN_ZIP64_16, _IN_ZIP64_32 = 0xFFFF, 0xFFFFFFFF
"""Values of fields that are too small for the number, which stands in the zip64 structures."""

_MAX_COMMENT_BYTES = 0xFFFF

_MAX_ENTRIES = 1 << 16
"""Assumption: 90 times the arrays of the largest released network."""


@dataclass(frozen=True)
class ZipEntry:
    """One entry of a zip."""

    name: str
    content: memoryview
    """Its bytes, a slice of the file."""
    crc32: int

    def checked(self) -> memoryview:
        """Return the bytes; raise ModelError where they are not those that were written."""
        if zlib.crc32(self.content) != self.crc32:
            _fail(f"the entry {self.name[:80]} has another checksum than was written")
        return self.content


def zip_entries(data: bytes) -> dict[str, ZipEntry]:
    """Return the entries of a zip by name.

    Args:
        data: the whole file.

    Raises:
        ModelError: It is no zip, or entries are compressed, encrypted, overlap each other, or reach outside the file.
    """
    view = memoryview(data)
    entries: dict[str, ZipEntry] = {}
    ranges: list[tuple[int, int]] = []
    count, directory_at, directory_end = _directory(data)
    for name, crc32, size, header_at in _central_headers(view[:directory_end], directory_at, count):
        if name in entries:
            _fail(f"two entries are called {name[:80]}")
        start = _content_start(view, header_at, name)
        if start + size > directory_at:
            _fail(f"the entry {name[:80]} of {size} bytes reaches beyond the entries' end")
        ranges.append((header_at, start + size))
        entries[name] = ZipEntry(name, view[start : start + size], crc32)
    ranges.sort()
    if any(after[0] < before[1] for before, after in pairwise(ranges)):
        _fail("entries overlap each other")
    return entries


def _directory(data: bytes) -> tuple[int, int, int]:
    """Return the number of entries, and first byte and end of the directory."""
    at = data.rfind(b"PK\5\6", max(0, len(data) - _END.size - _MAX_COMMENT_BYTES))
    if at < 0 or at + _END.size > len(data):
        _fail("a zip without a directory at its end")
    _, _, _, _, count, size, start, _ = _END.unpack_from(data, at)
    end = at
    if count == _IN_ZIP64_16 or _IN_ZIP64_32 in (size, start):
        count, size, start, end = _directory64(data, at - _END64_LOCATOR.size)
    if count > _MAX_ENTRIES:
        _fail(f"{count} entries, expected at most {_MAX_ENTRIES}")
    if start + size > end:
        _fail("a directory that reaches beyond the file's end")
    return count, start, start + size


def _directory64(data: bytes, locator_at: int) -> tuple[int, int, int, int]:
    """Return the number of entries, the directory's size and first byte, and where what follows it begins."""
    if locator_at < 0:
        _fail("a zip whose directory's place is missing")
    magic, _, at, _ = _END64_LOCATOR.unpack_from(data, locator_at)
    if magic != b"PK\6\7" or at + _END64.size > locator_at or data[at : at + 4] != b"PK\6\6":
        _fail("a zip whose directory's place is missing")
    *_, count, size, start = _END64.unpack_from(data, at)
    return count, size, start, at


def _central_headers(directory: memoryview, at: int, count: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield name, CRC-32, size in bytes and the local header's place of each entry."""
    for _ in range(count):
        if at + _CENTRAL.size > len(directory):
            _fail("a directory that ends early")
        magic, _, _, flags, method, _, _, crc32, packed, size, name_bytes, extra_bytes, comment_bytes, *_, header_at = (
            _CENTRAL.unpack_from(directory, at)
        )
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_bytes
        at = extra_at + extra_bytes + comment_bytes
        if magic != b"PK\1\2" or at > len(directory):
            _fail("a directory that ends early")
        name = bytes(directory[name_at:extra_at]).decode("utf-8" if flags & _UTF8_FLAG else "cp437", "replace")
        extra = directory[extra_at : extra_at + extra_bytes]
        size, packed, header_at = _zip64_numbers(extra, size, packed, header_at)
        if method != _STORED or flags & _ENCRYPTED_FLAG or size != packed:
            raise ModelError(
                f"has the compressed entry {name[:80]}: expected stored ones, as torch.save writes them; save it anew"
            )
        yield name, crc32, size, header_at


def _zip64_numbers(extra: memoryview, *fields: int) -> list[int]:
    """Return sizes and place of an entry; those that do not fit their fields stand in the extra field 0x0001."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = bytes(extra[at + 4 : at + 4 + size])
            break
        at += 4 + size
    numbers, used = [], 0
    for field in fields:
        if field == _IN_ZIP64_32:
            if used + 8 > len(wide):
                _fail("an entry whose size is missing")
            (field,) = struct.unpack_from("<Q", wide, used)
            used += 8
        numbers.append(field)
    return numbers


def _content_start(view: memoryview, header_at: int, name: str) -> int:
    """Return the first byte of an entry's content, behind its local header."""
    if header_at + _LOCAL.size > len(view):
        _fail(f"the entry {name[:80]} begins beyond the file's end")
    magic, *_, name_bytes, extra_bytes = _LOCAL.unpack_from(view, header_at)
    if magic != b"PK\3\4":
        _fail(f"the entry {name[:80]} is not where the directory says")
    return int(header_at + _LOCAL.size + name_bytes + extra_bytes)


def _fail(what: str) -> NoReturn:
    raise ModelError(f"is no readable torch file ({what}): damaged or incomplete, fetch it again")
