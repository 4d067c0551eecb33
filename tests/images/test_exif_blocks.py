"""EXIF blocks in memory: orientation, corrections in place, bounds. Read back by Pillow."""

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from realesr.images.metadata.exif import (
    append_to_tiff,
    exif_from_tiff,
    orientation,
    pixels_per_mm,
    repacked,
    upright,
    with_resolution,
)
from realesr.images.metadata.exif_correction import exif_enlarged
from realesr.images.metadata.structure_text import describes_structure

from .image_files import MAKER_NOTE, exif_block, photo

EXIF, GPS, INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop


def by_pillow(**fields: Any) -> bytes:
    """Return a block made by Pillow, from its TIFF header on: `first`, `exif`, `interop` are fields by tag."""
    exif = Image.Exif()
    for tag, value in fields.get("first", {}).items():
        exif[tag] = value
    for tag, value in fields.get("exif", {}).items():
        exif.get_ifd(EXIF)[tag] = value
    if "interop" in fields:
        exif.get_ifd(EXIF)[INTEROP] = fields["interop"]
    return exif.tobytes().removeprefix(b"Exif\0\0")


def loaded(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def enlarged(block: bytes, old: tuple[int, int] = (60, 40), new: tuple[int, int] = (240, 160)) -> bytes:
    result, _ = exif_enlarged(block, old, new)
    assert result is not None
    return result


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stated", range(1, 9))
def test_the_orientation_is_read(order: str, stated: int) -> None:
    assert orientation(exif_block(order, stated)) == stated
    assert orientation(b"Exif\0\0" + exif_block(order, stated)) == stated


@pytest.mark.parametrize(
    "block", [b"", b"II*\0", b"garbage", b"II*\0\xff\xff\xff\xff", exif_block(orientation=0), exif_block(orientation=9)]
)
def test_an_orientation_that_says_nothing_is_1(block: bytes) -> None:
    assert orientation(block) == 1


def test_an_orientation_that_was_not_applied_stays() -> None:
    assert upright(exif_block(orientation=9)) == exif_block(orientation=9)


def test_unequal_resolutions_turn_with_the_image() -> None:
    block = by_pillow(first={0x0112: 6, 0x011A: 100.0, 0x011B: 200.0, 0x0128: 2})
    turned = upright(block)
    assert turned is not None
    assert (loaded(turned)[0x011A], loaded(turned)[0x011B]) == (200, 100)


@pytest.mark.parametrize("turn", range(2, 9))
def test_the_subject_turns_with_the_image(turn: int) -> None:
    """The subject's pixel is found at the same place as in the pixels that Pillow turns."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[7, 11] = 255
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[turn]  # as ImageOps.exif_transpose has them
    y, x = np.argwhere(np.asarray(Image.fromarray(pixels).transpose(Image.Transpose(method))))[0]
    block = by_pillow(first={0x0112: turn}, exif={0xA002: 60, 0xA003: 40, 0x9214: (11, 7, 4, 2), 0xA214: (11, 7)})
    turned = loaded(upright(block) or b"").get_ifd(EXIF)
    assert turned[0xA214] == (x, y)
    assert turned[0x9214] == (x, y, *((2, 4) if turn > 4 else (4, 2)))


def test_a_subject_that_cannot_be_turned_is_taken_out() -> None:
    turned = upright(by_pillow(first={0x0112: 3}, exif={0xA214: (11, 7), 0x8827: 100}))
    assert dict(loaded(turned or b"").get_ifd(EXIF)) == {0x8827: 100}


def test_sizes_and_places_get_the_new_size() -> None:
    block = by_pillow(
        first={0x0100: 60, 0x0101: 40, 0x010F: "Maker"},
        exif={
            0xA002: 60,
            0xA003: 40,
            0x9214: (11, 7, 4, 2),
            0xA214: (11, 7),
            0xA20E: IFDRational(1000),
            0xA20F: IFDRational(500),
        },
        interop={1: "R98", 0x1001: 60, 0x1002: 40},
    )
    exif = loaded(enlarged(block))
    assert (exif[0x0100], exif[0x0101], exif[0x010F]) == (240, 160, "Maker")
    below = exif.get_ifd(EXIF)
    assert (below[0xA002], below[0xA003]) == (240, 160)
    assert (below[0x9214], below[0xA214]) == ((44, 28, 16, 8), (44, 28))
    assert (below[0xA20E], below[0xA20F]) == (4000, 2000)
    assert exif.get_ifd(INTEROP) == {1: "R98", 0x1001: 240, 0x1002: 160}


def test_sizes_beyond_16_bit_need_another_type_and_no_other_place() -> None:
    block = exif_block(width=40_000, height=30_000)
    result = enlarged(block, (40_000, 30_000), (160_000, 120_000))
    exif = loaded(result).get_ifd(EXIF)
    assert (exif[0xA002], exif[0xA003]) == (160_000, 120_000)
    assert result.find(MAKER_NOTE) == block.find(MAKER_NOTE)


def test_a_subject_beyond_16_bit_is_taken_out() -> None:
    block = by_pillow(exif={0xA214: (39_000, 7), 0x8827: 100})
    assert dict(loaded(enlarged(block, (40_000, 10), (160_000, 40))).get_ifd(EXIF)) == {0x8827: 100}


@pytest.mark.parametrize("order", ["<", ">"])
def test_nothing_else_changes_and_nothing_moves(order: str) -> None:
    """The thumbnail becomes zeros, and the entries of both sizes change; every other byte stays where it is."""
    block = exif_block(order)
    result = enlarged(block)
    small_at = block.index(b"\xff\xd8\xff")
    first_at = int.from_bytes(block[4:8], "little" if order == "<" else "big")
    thumbnail = set(range(small_at, first_at))
    changed = {at for at, (a, b) in enumerate(zip(block, result, strict=True)) if a != b} - thumbnail
    sizes = {block.index(struct.pack(order + "HH", tag, 3)) for tag in (0xA002, 0xA003)}
    next_directory = first_at + 2 + 12 * 9
    assert changed <= {at + offset for at in sizes for offset in range(12)} | set(
        range(next_directory, next_directory + 4)
    )
    assert not any(result[at] for at in thumbnail)


def test_a_thumbnail_at_the_end_is_cut_off() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    first = exif.tobytes().removeprefix(b"Exif\0\0")
    small = photo(1, 50).tobytes()
    at = len(first) + 2 + 3 * 12 + 4
    second = struct.pack(">H", 3) + b"".join(
        struct.pack(">HHII", *entry) for entry in ((0x0103, 4, 1, 6), (0x0201, 4, 1, at), (0x0202, 4, 1, len(small)))
    )
    block = bytearray(first + second + b"\0\0\0\0" + small)
    next_at = 8 + 2 + 12
    assert first[:4] == b"MM\0*"
    assert block[next_at : next_at + 4] == b"\0\0\0\0"
    block[next_at : next_at + 4] = struct.pack(">I", len(first))
    result = enlarged(bytes(block))
    assert result == first


def test_fields_about_old_storage_are_taken_out() -> None:
    first = {0x0103: 6, 0x0111: 8, 0x0117: 99, 0x0115: 3, 0x0102: (8, 8, 8), 0x010F: "Maker", 0x8298: "Me", 0x0213: 1}
    assert dict(loaded(enlarged(by_pillow(first=first)))) == {0x010F: "Maker", 0x8298: "Me", 0x0213: 1}


@pytest.mark.parametrize(
    ("text", "is_structure"),
    [
        (b"ImageJ=1.53t\nimages=3\nslices=3\n", True),
        (b'{"shape": [48, 32, 3]}', True),
        (b"shape=(48, 32, 3)", True),
        (b'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image/></OME>', True),
        (b"Aperio Image Library v10\r\n60x40 [0,0 60x40] JPEG|AppMag = 20", True),
        (b'{"width": 60, "height": 40}', True),
        (b'{"title": "a house", "year": 1960}', False),
        (b"A house, 60 x 40 m", False),
        (b"<b>A house</b> of 1960", False),
        (b"", False),
    ],
)
def test_descriptions_of_structure_are_told_from_others(text: bytes, is_structure: bool) -> None:
    assert describes_structure(text, (60, 40)) == is_structure
    block = by_pillow(first={0x010E: text.decode(), 0x010F: "Maker"})
    result, notices = exif_enlarged(block, (60, 40), (240, 160))
    assert loaded(result or b"").get(0x010E) == (None if is_structure else text.decode())
    assert bool(notices) == is_structure
    if not is_structure:
        assert result == block


def test_places_on_the_earth_are_taken_out_with_a_notice() -> None:
    block = by_pillow(first={33550: (1.0, 1.0, 0.0), 33922: (0.0,) * 6, 0x010F: "Maker"})
    result, notices = exif_enlarged(block, (60, 40), (240, 160))
    assert dict(loaded(result or b"")) == {0x010F: "Maker"}
    assert len(notices) == 1
    assert "GeoTIFF" in notices[0]


def test_a_resolution_is_added_without_moving_anything() -> None:
    block = by_pillow(first={0x010F: "Maker of cameras"}, exif={0x927C: MAKER_NOTE})
    result = with_resolution(block, (300 / 25.4, 150 / 25.4))
    exif = loaded(result)
    assert (exif[0x011A], exif[0x011B], exif[0x0128], exif[0x010F]) == (300, 150, 2, "Maker of cameras")
    assert result[8 : len(block)] == block[8:]
    assert with_resolution(result, (300 / 25.4, 150 / 25.4)) == result
    assert pixels_per_mm(with_resolution(None, (0.01, 5000))) == pytest.approx((0.01, 5000), rel=1e-3)


def test_repacking_keeps_every_value() -> None:
    block = enlarged(exif_block(">"))
    before, after = loaded(block), loaded(repacked(block))
    pointers = {EXIF, GPS}
    assert {k: v for k, v in after.items() if k not in pointers} == {
        k: v for k, v in before.items() if k not in pointers
    }
    assert len(repacked(block)) < len(block)
    for directory in (EXIF, GPS):
        assert {k: v for k, v in after.get_ifd(directory).items() if k != INTEROP} == {
            k: v for k, v in before.get_ifd(directory).items() if k != INTEROP
        }


def test_damaged_blocks_never_raise_and_never_hang() -> None:
    block, generator = exif_block(), np.random.default_rng(1)
    for number in range(400):
        damaged = bytearray(block)
        for place in generator.integers(0, len(block), int(generator.integers(1, 16))):
            damaged[place] = generator.integers(256)
        hostile = bytes(damaged[: generator.integers(len(block))] if number % 2 else damaged)
        orientation(hostile)
        pixels_per_mm(hostile)
        turned = upright(hostile)
        if turned is not None:
            result, _ = exif_enlarged(turned, (60, 40), (240, 160))
            repacked(result or block)


def _overlapping(fields: int, size: int) -> bytes:
    """Return a block whose fields all point at the same bytes."""
    entries = b"".join(struct.pack("<HHII", 0xC000 + i, 7, size, 8) for i in range(fields))
    head = b"II*\0" + struct.pack("<I", 8 + size) + bytes(size)
    return head + struct.pack("<H", fields) + entries + bytes(4)


def test_fields_that_share_their_bytes_do_not_multiply_them(tmp_path: Path) -> None:
    block = _overlapping(4096, 2**20)
    (tmp_path / "a.tif").write_bytes(block)
    tracemalloc.start()
    started = time.perf_counter()
    exif_from_tiff(tmp_path / "a.tif", 0)
    result, _ = exif_enlarged(block, (60, 40), (240, 160))
    repacked(result or b"")
    assert time.perf_counter() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 32e6
    tracemalloc.stop()


def test_fields_about_the_photo_go_through_tiff_and_those_about_storage_do_not(tmp_path: Path) -> None:
    first = {
        0x010F: "Maker", 0x013B: "Artist", 0x013C: "Computer", 0x4746: 4, 0x4749: 75, 0x8298: "Me",
        0x010D: "A document", 0xC4A5: b"PrintIM", 0x9C9B: b"a\0\0\0", 0x0103: 6, 0x0144: (8, 16), 0xC612: b"\1\4\0\0",
        0x02BC: b"<x/>", 0x014A: 8, 0x8649: b"8BIM",
    }  # fmt: skip
    block = by_pillow(first=first, exif={0x9400: 21.5, 0x927C: MAKER_NOTE})
    Image.fromarray(photo(9, 8)).save(tmp_path / "a.tif")
    append_to_tiff(tmp_path / "a.tif", block)
    with Image.open(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), photo(9, 8))
        exif = image.getexif()
        kept = {0x010F, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, 0x010D, 0xC4A5, 0x9C9B}
        assert {tag: exif[tag] for tag in kept} == {tag: first[tag] for tag in kept}
        assert not {0x0144, 0xC612, 0x02BC, 0x014A, 0x8649} & set(exif)
        assert exif.get_ifd(EXIF)[0x927C] == MAKER_NOTE
    again = loaded(exif_from_tiff(tmp_path / "a.tif", 0) or b"")
    assert {tag: again[tag] for tag in kept} == {tag: first[tag] for tag in kept}
    assert not {0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117} & set(again)
    assert again.get_ifd(EXIF)[0x9400] == 21.5
