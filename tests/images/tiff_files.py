"""TIFF files byte by byte, for what no library writes: never by the code that is tested."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = Any
"""An integer, several, pairs of them, or bytes."""


def page(
    width: int,
    height: int,
    pieces: Sequence[bytes],
    *,
    bits: Sequence[int],
    photometric: int | None,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    **more: Value,
) -> tuple[dict[int, Value], Sequence[bytes]]:
    """Return a page's fields and strips or tiles; `more` are further fields, named t and their tag."""
    fields: dict[int, Value] = {256: width, 257: height, 258: list(bits), 277: len(bits)}
    if photometric is not None:
        fields[262] = photometric
    if tile is None:
        fields[278] = rows or height
    else:
        fields |= {322: tile[0], 323: tile[1]}
    return fields | {int(name[1:]): value for name, value in more.items()}, pieces


def tiff(*pages: tuple[dict[int, Value], Sequence[bytes]], order: str = "<", big: bool = False) -> bytes:
    """Return a file of pages, its directories behind their pixels."""
    offset = "Q" if big else "I"
    head = b"II" if order == "<" else b"MM"
    file = bytearray(head + (struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42)))
    link = len(file)
    file += struct.pack(order + offset, 0)
    for fields, pieces in pages:
        offsets = []
        for piece in pieces:
            offsets.append(len(file))
            file += piece + b"\0" * (len(piece) % 2)
        places = (324, 325) if 322 in fields else (273, 279)
        entries = fields | {places[0]: offsets, places[1]: [len(piece) for piece in pieces]}
        stored = [(tag, *_packed(tag, value, order, big)) for tag, value in sorted(entries.items())]
        place = {}
        for tag, _, _, data in stored:
            if len(data) > (8 if big else 4):
                place[tag] = len(file)
                file += data + b"\0" * (len(data) % 2)
        struct.pack_into(order + offset, file, link, len(file))
        file += struct.pack(order + ("Q" if big else "H"), len(stored))
        for tag, kind, count, data in stored:
            inline = struct.pack(order + offset, place[tag]) if tag in place else data.ljust(8 if big else 4, b"\0")
            file += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count) + inline
        link = len(file)
        file += struct.pack(order + offset, 0)
    return bytes(file)


def _packed(tag: int, value: Value, order: str, big: bool) -> tuple[int, int, bytes]:
    """Return type, count and bytes of a value: bytes as UNDEFINED, pairs as RATIONAL, numbers as SHORT or LONG."""
    if isinstance(value, bytes):
        return (2 if tag == 333 else 7), len(value), value
    values = [value] if isinstance(value, int) else list(value)
    if values and isinstance(values[0], tuple):
        flat = [number for pair in values for number in pair]
        return 5, len(values), struct.pack(f"{order}{len(flat)}I", *flat)
    if big and tag in (273, 279, 324, 325, 330):
        return 16, len(values), struct.pack(f"{order}{len(values)}Q", *values)
    wide = max(values, default=0) > 0xFFFF or tag in (256, 257, 273, 279, 324, 325, 330)
    return (4 if wide else 3), len(values), struct.pack(f"{order}{len(values)}{'I' if wide else 'H'}", *values)


def packed_bits(values: NDArray[np.integer], bits: int) -> bytes:
    """Return rows (H, samples of a row) of `bits` bit each, highest bit first; every row begins with a byte."""
    rows = []
    for row in values.tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))
    return b"".join(rows)
