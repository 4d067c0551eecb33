"""Image files for tests, made by Pillow or byte by byte: never by the code that is tested, unless it says so."""

import io
import struct

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image

SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_PRIMARIES = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3_PRIMARIES = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
PROPHOTO_PRIMARIES = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, C) uint8: soft shapes in colour, a little noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / (7 + 3 * c) + c) + np.cos(y / (5 + 2 * c)) for c in range(channels)]
    values = 128 + 50 * np.stack(waves, axis=2) + generator.normal(0, 3, (height, width, channels))
    return np.clip(values, 0, 255).astype(np.uint8)


def rgb_profile(
    primaries: tuple[tuple[float, float], ...], gamma: float, white: tuple[float, float] = (0.3127, 0.3290)
) -> bytes:
    """An RGB matrix profile of version 2.4. Source: ICC.1:2001-04; Bradford's adaptation by Lindbloom."""

    def xyz(xy: tuple[float, float]) -> NDArray[np.float64]:
        x, y = xy
        return np.array([x / y, 1.0, (1 - x - y) / y])

    columns = np.stack([xyz(p) for p in primaries], axis=1)
    columns = columns * np.linalg.solve(columns, xyz(white))
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ xyz(white)))
    columns = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ columns
    tags = {name: _xyz_tag(columns[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= {name: gamma_tag(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"kTRC": gamma_tag(gamma)})


def gamma_tag(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"test\0"
    tags = tags | {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 79,
        b"wtpt": _xyz_tag(_D50),
        b"cprt": b"text\0\0\0\0" + text + b"\0\0\0",
    }
    table, values, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data = data.ljust((len(data) + 3) // 4 * 4, b"\0")
        table += name + struct.pack(">II", at + len(values), len(data))
        values += data
    body = struct.pack(">I", len(tags)) + table + values
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"test", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + _xyz_tag(_D50)[8:]
    return head.ljust(128, b"\0") + body


def _xyz_tag(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def libvips_profile(name: str) -> bytes:
    return bytes(pyvips.Operation.call("profile_load", name))


def thumbnail() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (200, 10, 10)).save(file, "JPEG")
    return file.getvalue()


MAKER_NOTE = b"FAKEMAKER\0" + bytes(range(200))


def exif_block(order: str = "<", orientation: int = 1, width: int = 60, height: int = 40) -> bytes:
    """An EXIF block as a camera writes it: five directories, a maker note, GPS, a thumbnail; no "Exif" in front."""
    block = bytearray((b"II*\0" if order == "<" else b"MM\0*") + b"\0\0\0\0")

    def number(kind: str, *values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}{kind}", *values)

    def text(value: str) -> tuple[int, int, bytes]:
        return 2, len(value) + 1, value.encode() + b"\0"

    def short(value: int) -> tuple[int, int, bytes]:
        return 3, 1, number("H", value)

    def long(value: int) -> tuple[int, int, bytes]:
        return 4, 1, number("I", value)

    def ratio(*values: int) -> tuple[int, int, bytes]:
        return 5, len(values) // 2, number("I", *values)

    def raw(value: bytes, kind: int = 7) -> tuple[int, int, bytes]:
        return kind, len(value), value

    def directory(fields: dict[int, tuple[int, int, bytes]], following: int = 0) -> int:
        at = len(block)
        values_at, values = at + 2 + 12 * len(fields) + 4, b""
        entries = number("H", len(fields))
        for tag, (kind, count, data) in sorted(fields.items()):
            stored = data.ljust(4, b"\0") if len(data) <= 4 else number("I", values_at + len(values))
            values += b"" if len(data) <= 4 else data + b"\0" * (len(data) % 2)
            entries += number("H", tag, kind)
            entries += number("I", count) + stored
        block.extend(entries + number("I", following) + values)
        return at

    interop = directory({1: text("R98"), 2: raw(b"0100")})
    gps = directory({0: raw(b"\2\3\0\0", 1), 1: text("N"), 2: ratio(47, 1, 30, 1, 1234, 100)})
    exif = directory(
        {
            0x829A: ratio(1, 250),
            0x8827: short(400),
            0x9000: raw(b"0232"),
            0x9003: text("2021:05:04 10:11:12"),
            0x927C: raw(MAKER_NOTE),
            0xA002: short(width),
            0xA003: short(height),
            0xA005: long(interop),
            0xA434: text("Some Lens 50mm"),
        }
    )
    small = thumbnail()
    small_at = len(block)
    block.extend(small + b"\0" * (len(small) % 2))
    second = directory({0x0103: short(6), 0x0201: long(small_at), 0x0202: long(len(small))})
    first = directory(
        {
            0x010F: text("Maker Co"),
            0x0110: text("Model X"),
            0x0112: short(orientation),
            0x011A: ratio(300, 1),
            0x011B: ratio(300, 1),
            0x0128: short(2),
            0x0132: text("2021:05:04 10:11:12"),
            0x8769: long(exif),
            0x8825: long(gps),
        },
        second,
    )
    block[4:8] = number("I", first)
    return bytes(block)


XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" tiff:Orientation="6" tiff:ImageWidth='60' xmp:Rating="4">
<exif:PixelYDimension>40</exif:PixelYDimension><tiff:ImageLength>40</tiff:ImageLength>
<xmp:Thumbnails><rdf:Alt><rdf:li>AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
