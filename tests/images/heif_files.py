"""HEIF files for tests, laid out box by box around images that Pillow, pillow-heif or libvips has coded."""

import struct
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """One item: its type, its coded bytes, and its properties as whole boxes."""

    kind: bytes
    data: bytes
    properties: tuple[bytes, ...] = ()
    is_hidden: bool = False
    content_type: bytes = b""


@dataclass(frozen=True)
class Reference:
    """A reference from one item to others, by their place among the parts, from 0."""

    kind: bytes
    source: int
    targets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What differs between the ways of writing the same file."""

    brand: bytes = b"avif"
    primary: int = 0
    ids: tuple[int, ...] = ()
    in_idat: bool = False
    wide: bool = False
    references: tuple[Reference, ...] = field(default_factory=tuple)


def box(kind: bytes, *data: bytes) -> bytes:
    body = b"".join(data)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, version: int, flags: int, *data: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *data)


def nclx(primaries: int, transfer: int, matrix: int = 6, is_full: bool = True) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, is_full << 7))


def ispe(width: int, height: int) -> bytes:
    return full_box(b"ispe", 0, 0, struct.pack(">II", width, height))


def pixi(*bits: int) -> bytes:
    return full_box(b"pixi", 0, 0, bytes((len(bits), *bits)))


def clap(width: tuple[int, int], height: tuple[int, int], across: tuple[int, int], down: tuple[int, int]) -> bytes:
    return box(b"clap", struct.pack(">IIIIiIiI", *width, *height, *across, *down))


def alpha_of() -> bytes:
    return full_box(b"auxC", 0, 0, b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")


def grid(rows: int, columns: int, width: int, height: int) -> bytes:
    return struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)


def find_box(file: bytes, kind: bytes) -> bytes:
    """The first box of a kind, whole; by its four letters, wherever they stand."""
    at = file.index(kind) - 4
    return file[at : at + struct.unpack_from(">I", file, at)[0]]


def coded(file: bytes) -> tuple[bytes, bytes]:
    """Configuration box and coded bytes of a file that holds one image and nothing else."""
    config = find_box(file, b"av1C" if b"av1C" in file else b"hvcC")
    return config, find_box(file, b"mdat")[8:]


def heif(parts: list[Part], layout: Layout) -> bytes:
    ids = layout.ids or tuple(range(1, len(parts) + 1))
    id_form = ">I" if layout.wide else ">H"
    properties: list[bytes] = []
    for part in parts:
        properties += [each for each in part.properties if each not in properties]

    def number(at: int) -> bytes:
        return struct.pack(id_form, ids[at])

    infe = b"".join(
        full_box(
            b"infe", 3 if layout.wide else 2, int(part.is_hidden), number(i), b"\0\0", part.kind, b"\0",
            part.content_type + b"\0" if part.kind == b"mime" else b"",
        )
        for i, part in enumerate(parts)
    )  # fmt: skip
    ipma = struct.pack(">I", len(parts))
    for i, part in enumerate(parts):
        places = bytes(0x80 * (each[4:8] in (b"irot", b"imir", b"clap", b"av1C", b"hvcC")) | properties.index(each) + 1
                       for each in part.properties)  # fmt: skip
        ipma += number(i) + bytes((len(places),)) + places
    iref = b"".join(
        box(each.kind, number(each.source), struct.pack(">H", len(each.targets)), *map(number, each.targets))
        for each in layout.references
    )

    def meta(first: int) -> bytes:
        iloc, at = b"", first
        for i, part in enumerate(parts):
            method = struct.pack(">H", int(layout.in_idat))
            iloc += number(i) + method + b"\0\0" + struct.pack(">HII", 1, at, len(part.data))
            at += len(part.data)
        count = struct.pack(">I" if layout.wide else ">H", len(parts))
        return full_box(
            b"meta", 0, 0,
            full_box(b"hdlr", 0, 0, b"\0\0\0\0pict", b"\0" * 13),
            full_box(b"pitm", int(layout.wide), 0, number(layout.primary)),
            full_box(b"iloc", 2 if layout.wide else 1, 0, b"\x44\0", count, iloc),
            full_box(b"iinf", int(layout.wide), 0, count, infe),
            full_box(b"iref", int(layout.wide), 0, iref) if iref else b"",
            box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", int(layout.wide), 0, ipma)),
            box(b"idat", *(part.data for part in parts)) if layout.in_idat else b"",
        )  # fmt: skip

    head = box(b"ftyp", layout.brand, b"\0\0\0\0", b"mif1miaf", layout.brand)
    first = 0 if layout.in_idat else len(head) + len(meta(0)) + 8
    data = b"" if layout.in_idat else box(b"mdat", *(part.data for part in parts))
    return head + meta(first) + data
