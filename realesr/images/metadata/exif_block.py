"""Edits an EXIF block in place: values, entries that are taken out, and no other byte.

Maker notes point at places in the block by their distance from its start, so that the layout must stay. What is taken
out is overwritten with zeros, and cut off where it lies at the block's end.

Source of the layout: TIFF 6.0, part 1, section 2; CIPA DC-008 (Exif 3.0), 4.5 and 4.6.
"""

import struct
from collections.abc import Callable, Sequence

from realesr.images.metadata.tiff_fields import IFD, LONG, SHORT, Directory, Entry, read_directory, read_header

EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 0x8769, 0x8825, 0xA005
FIRST = 0
"""Name of the first directory in `ExifBlock.directories`; the others have the tag of the field that points at them."""

_HEADER_BYTES = 8
_THUMBNAIL_PLACES = {0x0201: 0x0202, 0x0111: 0x0117}
"""Fields of offsets of a thumbnail's parts, and those of the parts' sizes: JPEG, strips."""
_MOST_MORE_DIRECTORIES = 8


class ExifBlock:
    """An EXIF block and its directories. Change it by its methods, then take its bytes by `finished`."""

    def __init__(self, exif: bytes) -> None:
        """Read the directories; raise ValueError where the first one is damaged. Other damaged ones are ignored."""
        self.layout, self._first_at = read_header(exif)
        if self.layout.big:
            raise ValueError("an EXIF block is no BigTIFF")
        self.data = bytearray(exif)
        self.order = self.layout.order
        self.directories = {FIRST: read_directory(self.data, self._first_at, self.layout)}
        self._dropped: list[tuple[int, int]] = []
        for pointer in (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER):
            parent = self.directories.get(EXIF_POINTER if pointer == INTEROP_POINTER else FIRST)
            entry = parent.find(pointer) if parent else None
            if entry is not None and (place := self.integers(entry)):
                self._open(pointer, place[0])

    def _open(self, pointer: int, offset: int) -> None:
        try:
            directory = read_directory(self.data, offset, self.layout)
        except ValueError:
            return
        if directory.at not in (other.at for other in self.directories.values()):
            self.directories[pointer] = directory

    def find(self, directory: int, tag: int) -> Entry | None:
        """Return an entry by its directory's name and its tag, or None."""
        found = self.directories.get(directory)
        return found.find(tag) if found else None

    def value(self, entry: Entry, most_bytes: int = 2**16) -> bytes:
        """Return the first bytes of an entry's value; fewer where it lies outside the block."""
        return bytes(self.data[entry.place : entry.place + min(entry.size, most_bytes)])

    def integers(self, entry: Entry) -> list[int]:
        """Return the values of an entry of type SHORT or LONG; an empty list for any other, or outside the block."""
        return self._unpack(entry, {SHORT: "H", LONG: "I", IFD: "I"}.get(entry.kind))

    def ratios(self, entry: Entry) -> list[int]:
        """Return numerators and denominators, in turn, of an entry of type RATIONAL; an empty list for any other."""
        return self._unpack(entry, "II" if entry.kind == 5 else None)

    def _unpack(self, entry: Entry, form: str | None) -> list[int]:
        data = self.value(entry)
        if form is None or len(data) != entry.size:
            return []
        return list(struct.unpack(f"{self.order}{entry.count * len(form)}{form[0]}", data))

    def set_integer(self, entry: Entry, value: int) -> None:
        """Set an entry to one integer, which always fits into it: SHORT where it is, LONG where the value needs it."""
        kind, form = (SHORT, "HH") if entry.kind == SHORT and value < 2**16 else (LONG, "I")
        values = (value, 0) if kind == SHORT else (value,)
        struct.pack_into(f"{self.order}HHI{form}", self.data, entry.at, entry.tag, kind, 1, *values)

    def overwrite(self, entry: Entry, values: Sequence[int]) -> None:
        """Overwrite the numbers that `integers` or `ratios` returned with as many others of the same type."""
        form = "H" if entry.kind == SHORT else "I"
        struct.pack_into(f"{self.order}{len(values)}{form}", self.data, entry.place, *values)

    def remove_missing(self) -> None:
        """Take out the entries that have no value: it would lie outside the block, or all together exceed its size."""
        for name, directory in list(self.directories.items()):
            left_bytes, missing = len(self.data), set()
            for entry in directory.entries:
                left_bytes -= entry.size if entry.size > 4 else 0
                if entry.place + entry.size > len(self.data) or left_bytes < 0:
                    missing.add(entry.at)
            self.remove(name, lambda entry, missing=missing: entry.at in missing, erase=False)  # type: ignore[misc]

    def remove(self, directory: int, is_removed: Callable[[Entry], bool], *, erase: bool = True) -> None:
        """Take entries out of a directory, and their values unless others need these; the ones behind them move up."""
        found = self.directories.get(directory)
        if found is None or not any(map(is_removed, found.entries)):
            return
        kept = [entry for entry in found.entries if not is_removed(entry)]
        raw = b"".join(self.data[entry.at : entry.at + self.layout.entry_bytes] for entry in kept)
        raw += struct.pack(self.layout.offset_form, found.following)
        end = found.following_at + self.layout.offset_bytes
        if erase:
            self._dropped += [_extent(entry) for entry in found.entries if is_removed(entry)]
        self.data[found.at : end] = (struct.pack(self.layout.count_form, len(kept)) + raw).ljust(end - found.at, b"\0")
        self.directories[directory] = read_directory(self.data, found.at, self.layout)

    def remove_thumbnails(self) -> None:
        """Take out the directories that follow the first one, with what they point at."""
        first = self.directories[FIRST]
        following = first.following
        for _ in range(_MOST_MORE_DIRECTORIES):
            try:
                directory = read_directory(self.data, following, self.layout)
            except ValueError:
                break
            self._drop_thumbnail(directory)
            following = directory.following
        if first.following:
            struct.pack_into(self.layout.offset_form, self.data, first.following_at, 0)
            self.directories[FIRST] = read_directory(self.data, first.at, self.layout)

    def _drop_thumbnail(self, directory: Directory) -> None:
        self._dropped.append(_whole(directory))
        self._dropped += [_extent(entry) for entry in directory.entries]
        for places_tag, sizes_tag in _THUMBNAIL_PLACES.items():
            places, sizes = (directory.find(tag) for tag in (places_tag, sizes_tag))
            if places and sizes:
                parts = zip(self.integers(places), self.integers(sizes), strict=False)
                self._dropped += [(place, place + size) for place, size in parts]

    def finished(self) -> bytes:
        """Return the block, with zeros for what was taken out, and without it at its end."""
        used = self._used()
        ends: dict[int, int] = {}
        for start, end in self._dropped:
            end = min(end, len(self.data))
            if start < end and used.find(1, start, end) < 0 and not used[start]:
                self.data[start:end] = bytes(end - start)
                ends[end] = min(start, ends.get(end, start))
        length = len(self.data)
        while places := [place for place in (length, length - 1) if place in ends]:
            length = ends.pop(places[0])
        return bytes(self.data[:length])

    def _used(self) -> bytearray:
        """Return a byte for each of the block: 1 where a directory or a value lies that is still referred to."""
        used = bytearray(len(self.data))
        used[:_HEADER_BYTES] = b"\1" * min(_HEADER_BYTES, len(used))
        left_bytes = 4 * len(used)  # overlapping values cannot make this longer
        for directory in self.directories.values():
            for start, end in (_whole(directory), *map(_extent, directory.entries)):
                end = min(end, len(used), start + left_bytes)
                if start < end:
                    used[start:end] = b"\1" * (end - start)
                    left_bytes -= end - start
        return used


def _extent(entry: Entry) -> tuple[int, int]:
    """Return where an entry's value begins and ends, if that is not in the entry."""
    return (entry.place, entry.place + entry.size) if entry.size > 4 else (0, 0)


def _whole(directory: Directory) -> tuple[int, int]:
    """Return where a directory begins and ends."""
    return directory.at, directory.following_at + 4
