"""Reading BMP: every header, depth, compression and mask, in files made byte by byte, and against Pillow."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import InputError
from realesr.images.colour import is_srgb, profile_space
from realesr.images.info import ImageInfo
from realesr.images.reader import open_image

from .image_files import ADOBE_PRIMARIES, SRGB_PRIMARIES, rgb_profile

RGB, RLE8, RLE4, BITFIELDS, ALPHA_BITFIELDS = 0, 1, 2, 3, 6
GREYS = np.random.default_rng(3).integers(0, 256, 256).astype(np.uint8)
COLOURS = np.random.default_rng(4).integers(0, 256, (256, 3)).astype(np.uint8)


def packed(rows: NDArray[Any], bits: int) -> bytes:
    """Rows of pixels, (H, W), as they are stored from the first to the last: padded to four bytes."""
    if bits < 8:
        planes = (rows[:, :, None].astype(np.uint8) >> np.arange(bits - 1, -1, -1, dtype=np.uint8)) & 1
        stored = np.packbits(planes.reshape(len(rows), -1), axis=1)
    else:
        stored = rows.astype("<u4")[:, :, None].view("u1")[:, :, : bits // 8].reshape(len(rows), -1)
    return b"".join(row.tobytes() + bytes(-row.size % 4) for row in stored)


def bmp(
    size: tuple[int, int],
    bits: int,
    pixels: bytes,
    *,
    header: int = 40,
    compression: int = RGB,
    masks: tuple[int, ...] = (),
    palette: NDArray[np.uint8] | None = None,
    colour: bytes = b"",
    extra: bytes = b"",
    used: int = 0,
) -> bytes:
    """A BMP file; `size` is width and height, a negative height is top-down; `colour` is the end of V4 and V5."""
    if header == 12:
        dib = struct.pack("<IHHHH", 12, *size, 1, bits)
    else:
        dib = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(pixels), 3000, 4000, used, 0)
        dib = struct.pack("<I", header) + (dib[4:] + struct.pack(f"<{len(masks)}I", *masks))[: header - 4]
        if header > 56:
            dib = dib.ljust(56, b"\0") + colour
        dib = dib.ljust(header, b"\0")
        if header == 40:
            dib += struct.pack(f"<{len(masks)}I", *masks)
    if palette is not None:
        unused = bytes(1) if header != 12 else b""
        dib += b"".join(entry[::-1].tobytes() + unused for entry in palette)
    at = 14 + len(dib)
    return b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + dib + pixels + extra


def read(path: Path, data: bytes) -> tuple[NDArray[np.generic], ImageInfo, tuple[str, ...]]:
    path.write_bytes(data)
    with open_image(path) as reader:
        return reader.read_rows(reader.info.height_px), reader.info, reader.notices


def indices(bits: int) -> NDArray[np.int64]:
    return np.random.default_rng(bits).integers(0, 1 << bits, (5, 7))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("header", [12, 40, 64, 108, 124])
@pytest.mark.parametrize("is_grey", [False, True])
def test_palettes_of_every_depth_read(bits: int, header: int, is_grey: bool, tmp_path: Path) -> None:
    rows = indices(bits)
    palette = (GREYS[:, None].repeat(3, 1) if is_grey else COLOURS)[: 1 << bits]
    data = bmp((7, 5), bits, packed(rows[::-1], bits), header=header, palette=palette)
    pixels, info, notices = read(tmp_path / "a.bmp", data)
    assert (info.is_grey, info.has_alpha, info.bits, notices) == (is_grey, False, 8, ())
    np.testing.assert_array_equal(pixels, palette[rows][:, :, : pixels.shape[2]])
    assert info.pixels_per_mm == (None if header == 12 else (3.0, 4.0))


def test_the_first_row_is_the_top_one_where_the_height_is_negative(tmp_path: Path) -> None:
    rows = indices(8)
    for height, stored in ((5, rows[::-1]), (-5, rows)):
        pixels = read(tmp_path / "a.bmp", bmp((7, height), 8, packed(stored, 8), palette=COLOURS))[0]
        np.testing.assert_array_equal(pixels, COLOURS[rows])


MASKS = [
    (16, RGB, (), (0x7C00, 0x3E0, 0x1F)),
    (24, RGB, (), (0xFF0000, 0xFF00, 0xFF)),
    (32, RGB, (), (0xFF0000, 0xFF00, 0xFF)),
    (16, BITFIELDS, (0xF800, 0x7E0, 0x1F), None),
    (16, BITFIELDS, (0x7C00, 0x3E0, 0x1F), None),
    (16, BITFIELDS, (0xF00, 0xF0, 0xF, 0xF000), None),
    (32, BITFIELDS, (0xFF, 0xFF00, 0xFF0000), None),
    (32, BITFIELDS, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), None),
    (32, BITFIELDS, (0xFF000000, 0xFF0000, 0xFF00, 0xFF), None),
    (32, BITFIELDS, (0x3FF00000, 0xFFC00, 0x3FF), None),
    (32, BITFIELDS, (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000), None),
    (32, ALPHA_BITFIELDS, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), None),
]


@pytest.mark.parametrize(("bits", "compression", "masks", "meant"), MASKS)
@pytest.mark.parametrize("header", [40, 56, 108, 124])
def test_masks_of_every_kind_read(
    bits: int, compression: int, masks: tuple[int, ...], meant: tuple[int, ...] | None, header: int, tmp_path: Path
) -> None:
    if header == 40 and compression == BITFIELDS:
        masks = masks[:3]  # the fourth is part of the header from 56 bytes on
    rows = np.random.default_rng(0).integers(0, 1 << bits, (5, 7), np.int64)
    data = bmp((7, -5), bits, packed(rows, bits), header=header, compression=compression, masks=masks)
    pixels, info, notices = read(tmp_path / "a.bmp", data)
    meant = meant or masks
    depth = 16 if max(mask.bit_count() for mask in meant) > 8 else 8
    assert (info.bits, info.has_alpha, info.is_grey, notices) == (depth, len(meant) == 4, False, ())
    for channel, mask in enumerate(meant):
        unit = mask & -mask
        expected = np.rint((rows & mask) // unit * (2**depth - 1) / (mask // unit))
        np.testing.assert_array_equal(pixels[:, :, channel], expected)


def test_32_bits_without_an_alpha_mask_have_no_alpha(tmp_path: Path) -> None:
    rows = np.full((2, 3), 0x80102030)
    for masks, compression in (((), RGB), ((0xFF0000, 0xFF00, 0xFF, 0), BITFIELDS)):
        data = bmp((3, 2), 32, packed(rows, 32), header=124, masks=masks, compression=compression)
        pixels, info, _ = read(tmp_path / "a.bmp", data)
        assert not info.has_alpha
        np.testing.assert_array_equal(pixels[0, 0], [0x10, 0x20, 0x30])


RUNS = bytes((3, 7, 0, 3, 1, 2, 9, 0, 1, 5, 0, 0))  # 7 7 7 1 2 9 5, end of row
RUNS_4 = bytes((3, 0x78, 0, 3, 0x12, 0x90, 1, 0x56, 0, 0))  # 7 8 7 1 2 9 5, end of row


@pytest.mark.parametrize(("bits", "row"), [(8, RUNS), (4, RUNS_4)])
def test_run_lengths_read_as_pillow_reads_them(bits: int, row: bytes, tmp_path: Path) -> None:
    compression = RLE8 if bits == 8 else RLE4
    data = bmp((7, 3), bits, row * 3 + b"\0\1", compression=compression, palette=COLOURS[: 1 << bits])
    pixels, _, notices = read(tmp_path / "a.bmp", data)
    expected = [7, 7, 7, 1, 2, 9, 5] if bits == 8 else [7, 8, 7, 1, 2, 9, 5]
    np.testing.assert_array_equal(pixels, COLOURS[[expected] * 3])
    with Image.open(tmp_path / "a.bmp") as image:
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    assert notices == ()
    read(tmp_path / "a.bmp", data[:-4])  # no end of the last row, no end of the image: all pixels are there


def test_pixels_that_run_lengths_skip_are_told(tmp_path: Path) -> None:
    data = bmp((7, 3), 8, b"\2\5" + b"\0\2\1\1" + b"\3\6" + b"\0\1", compression=RLE8, palette=COLOURS)
    pixels, _, notices = read(tmp_path / "a.bmp", data)
    expected = [[0] * 7, [0, 0, 0, 6, 6, 6, 0], [5, 5, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(pixels, COLOURS[expected])
    assert notices == ("the file skips 16 px, which got the palette's first colour",)


def v4(primaries: tuple[tuple[float, float], ...], gammas: tuple[float, ...], scale: float = 1) -> bytes:
    """Colour fields of calibrated RGB: 0, end points X, Y, Z of red, green and blue, and their gammas."""
    ends = [round(part * scale * 2**30) for x, y in primaries for part in (x, y, 1 - x - y)]
    return struct.pack("<I9i3I", 0, *ends, *(round(gamma * 65536) for gamma in gammas))


def colour_of(path: Path, header: int, colour: bytes, **more: Any) -> tuple[ImageInfo, tuple[str, ...]]:
    rows = np.full((2, 3), 0x102030)
    return read(path, bmp((3, 2), 24, packed(rows, 24), header=header, colour=colour, **more))[1:]


def test_calibrated_rgb_gets_its_profile(tmp_path: Path) -> None:
    info, notices = colour_of(tmp_path / "a.bmp", 108, v4(ADOBE_PRIMARIES, (2.2, 2.2, 2.2)))
    assert info.icc is not None
    assert (profile_space(info.icc), is_srgb(info.icc), notices) == ("rgb", False, ())
    info, notices = colour_of(tmp_path / "a.bmp", 108, v4(SRGB_PRIMARIES, (1.8, 1.8, 1.8)))
    assert (info.icc is not None, notices) == (True, ())
    info, notices = colour_of(tmp_path / "a.bmp", 108, v4(SRGB_PRIMARIES, (1.0, 1.0, 1.0)))
    assert info.icc is not None
    assert is_srgb(info.icc)
    assert len(notices) == 1


@pytest.mark.parametrize(
    "colour",
    [
        v4(SRGB_PRIMARIES, (2.2, 2.2, 2.2)),
        v4(SRGB_PRIMARIES, (0, 0, 0)),
        v4(((0, 0),) * 3, (0, 0, 0), scale=0),
        struct.pack("<I", 0x73524742) + v4(ADOBE_PRIMARIES, (2.2, 2.2, 2.2))[4:],
        struct.pack("<I", 0x57696E20),
    ],
)
def test_srgb_needs_no_profile(colour: bytes, tmp_path: Path) -> None:
    for header in (108, 124):
        assert colour_of(tmp_path / "a.bmp", header, colour) == (
            colour_of(tmp_path / "b.bmp", 40, b"")[0],
            (),
        )


def test_profiles_of_v5_are_kept_and_links_are_told(tmp_path: Path) -> None:
    icc = rgb_profile(ADOBE_PRIMARIES, 2.2)
    at = 124 + 24  # two rows of 3 px of 24 bits

    def colour(kind: int, size: int) -> bytes:
        return struct.pack("<I", kind).ljust(52, b"\0") + struct.pack("<4I", 4, at, size, 0)

    assert colour_of(tmp_path / "a.bmp", 124, colour(0x4D424544, len(icc)), extra=icc)[0].icc == icc
    info, notices = colour_of(tmp_path / "a.bmp", 124, colour(0x4D424544, len(icc) + 1), extra=icc)
    assert info.icc is None
    assert notices == ("the colour profile is damaged and was dropped; colours are treated as sRGB",)
    info, notices = colour_of(tmp_path / "a.bmp", 124, colour(0x4C494E4B, 9), extra=b"C:\\a.icc\0")
    assert info.icc is None
    assert "another file, which is not read" in notices[0]


ROWS_8 = packed(indices(8), 8)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bmp((7, 5), 8, ROWS_8[:-9], palette=COLOURS), "truncated: it has 3 of 5 rows"),
        (bmp((7, 5), 8, ROWS_8, palette=COLOURS[:9], used=9), "of a palette of 9"),
        (bmp((7, 3), 8, RUNS, compression=RLE8, palette=COLOURS), "truncated: its run lengths end in row 1 of 3"),
        (bmp((6, 3), 8, RUNS, compression=RLE8, palette=COLOURS), "a run of 1 px at 6 of 6 px in row 0"),
        (bmp((7, 3), 8, b"\0\2\0\0" * 9, compression=RLE8, palette=COLOURS), "leads nowhere"),
        (bmp((7, 5), 24, b"\xff\xd8\xff" * 50, compression=4), "holds JPEG, which is not read"),
        (bmp((7, 5), 0, b"\x89PNG" * 50, compression=5), "holds PNG, which is not read"),
        (bmp((7, 5), 32, bytes(200), compression=11), "holds CMYK"),
        (bmp((7, 5), 1, bytes(200), compression=3, header=64), "Huffman's code"),
        (bmp((7, 5), 5, bytes(200)), "5 bits a pixel"),
        (bmp((7, 5), 16, bytes(200), compression=3, masks=(0xF800, 0x7E0, 0x15)), "a run of bits for each"),
        (bmp((7, 5), 16, bytes(200), compression=3, masks=(0xF800, 0xFE0, 0x1F)), "a run of bits for each"),
        (bmp((7, 5), 16, bytes(200), compression=3, masks=(0, 0, 0)), "a run of bits for each"),
        (bmp((0, 5), 24, bytes(200)), "states 0 x 5 px"),
        (bmp((7, -(2**31)), 24, bytes(200)), "states 7 x 2147483648 px"),
        (bmp((60_000, 60_000), 24, bytes(200)), "expected at most 1,000,000,000"),
        (b"BA" + bytes(12) + bmp((7, 5), 8, ROWS_8, palette=COLOURS), "array of OS/2 bitmaps"),
        (b"BM" + bytes(12) + b"\x29" + bytes(50), "header has 41 bytes"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "header has 40 bytes"),
    ],
)
def test_damage_and_other_kinds_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path / "a.bmp", data)


def test_a_file_cut_anywhere_is_refused_in_words(tmp_path: Path) -> None:
    whole = bmp((7, 5), 32, packed(indices(8), 32), header=124, compression=BITFIELDS, masks=(0xFF, 0xFF00, 0xFF0000))
    for cut in range(20, len(whole), 3):
        with pytest.raises(InputError, match=r"damaged|truncated"):
            read(tmp_path / "a.bmp", whole[:cut])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_files_of_pillow_read_as_pillow_reads_them(mode: str, tmp_path: Path) -> None:
    image = Image.radial_gradient("L").resize((33, 20))
    image = image.convert("RGB").quantize(40) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.bmp")
    pixels, info, _ = read(tmp_path / "a.bmp", (tmp_path / "a.bmp").read_bytes())
    assert info.is_grey == (mode != "RGB")
    np.testing.assert_array_equal(pixels[:, :, 0], np.asarray(image.convert("L")))
