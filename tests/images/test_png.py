"""Reading PNG: what its chunks say about colour, metadata and damage, in files that are made byte by byte."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import InputError
from realesr.images.colour import is_srgb
from realesr.images.info import ImageInfo
from realesr.images.reader import open_image

from .image_files import ADOBE_PRIMARIES, SRGB_PRIMARIES, XMP, exif_block, grey_profile, libvips_profile, rgb_profile

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
EXIF = exif_block()
ADOBE = rgb_profile(ADOBE_PRIMARIES, 2.2)


def chunk(name: bytes, data: bytes, *, damaged: bool = False) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ damaged)


def profile_chunk(icc: bytes) -> bytes:
    return chunk(b"iCCP", b"test\0\0" + zlib.compress(icc))


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chrm(primaries: tuple[tuple[float, float], ...]) -> bytes:
    numbers = [round(n * 100_000) for xy in ((0.3127, 0.3290), *primaries) for n in xy]
    return chunk(b"cHRM", struct.pack(">8I", *numbers))


def png(
    values: NDArray[np.generic], kind: int, depth: int = 8, before: bytes = b"", after: bytes = b"", end: bool = True
) -> bytes:
    """The values (H, W, C) as a PNG file, with more chunks before and after the pixels."""
    height, width = values.shape[:2]
    rows = values.reshape(height, -1).astype(np.uint16)
    bits = (rows[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed)))
    return b"\x89PNG\r\n\x1a\n" + head + before + data + after + chunk(b"IEND", b"") * end


def read(path: Path, data: bytes) -> tuple[NDArray[np.generic], ImageInfo, tuple[str, ...]]:
    path.write_bytes(data)
    with open_image(path) as reader:
        return reader.read_rows(reader.info.height_px), reader.info, reader.notices


def some(kind: int, depth: int = 8, most: int | None = None) -> NDArray[np.generic]:
    return np.random.default_rng(0).integers(0, most or 2**depth, (5, 7, CHANNELS[kind]))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_grey_palette_is_grey(depth: int, alpha: bool, tmp_path: Path) -> None:
    greys = np.random.default_rng(1).integers(0, 256, 2**depth).astype(np.uint8)
    opacity = greys[::-1]
    indices = some(PALETTE, depth)
    before = chunk(b"PLTE", greys.repeat(3).tobytes()) + (chunk(b"tRNS", opacity.tobytes()) if alpha else b"")
    pixels, info, notices = read(tmp_path / "a.png", png(indices, PALETTE, depth, before))
    assert (info.is_grey, info.has_alpha, info.bits, notices) == (True, alpha, 8, ())
    np.testing.assert_array_equal(pixels[:, :, :1], greys[indices])
    if alpha:
        np.testing.assert_array_equal(pixels[:, :, 1:], opacity[indices])


def test_a_palette_with_one_colour_is_colour_even_where_no_pixel_has_it(tmp_path: Path) -> None:
    before = chunk(b"PLTE", bytes((0, 0, 0, 9, 9, 9, 9, 9, 10)))
    assert not read(tmp_path / "a.png", png(some(PALETTE, most=2), PALETTE, before=before))[1].is_grey


def test_a_grey_palette_keeps_a_profile_that_grey_cannot_carry(tmp_path: Path) -> None:
    palette = chunk(b"PLTE", np.arange(256, dtype=np.uint8).repeat(3).tobytes())
    for icc, is_grey in ((ADOBE, False), (libvips_profile("srgb"), True)):
        _, info, notices = read(tmp_path / "a.png", png(some(PALETTE), PALETTE, before=profile_chunk(icc) + palette))
        assert (info.is_grey, info.icc, notices) == (is_grey, None if is_grey else icc, ())


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_level_of_every_depth_becomes_alpha(depth: int, tmp_path: Path) -> None:
    values = some(GREY, depth)
    level = int(values[2, 3, 0])
    trns = chunk(b"tRNS", struct.pack(">H", level))
    pixels, info, _ = read(tmp_path / "a.png", png(values, GREY, depth, before=trns + chunk(b"sBIT", b"\1")))
    full = 65535 if depth == 16 else 255
    assert (info.is_grey, info.has_alpha, info.bits) == (True, True, 16 if depth == 16 else 8)
    np.testing.assert_array_equal(pixels[:, :, :1], values * full // (2**depth - 1))
    np.testing.assert_array_equal(pixels[:, :, 1:], np.where(values == level, 0, full))


def test_a_transparent_colour_of_16_bit_becomes_alpha(tmp_path: Path) -> None:
    values = some(RGB, 16)
    trns = chunk(b"tRNS", struct.pack(">3H", *values[1, 1]))
    pixels, info, _ = read(tmp_path / "a.png", png(values, RGB, 16, before=trns))
    assert (info.bits, info.has_alpha) == (16, True)
    np.testing.assert_array_equal(pixels[:, :, :3], values)
    assert (pixels[:, :, 3] == 0).sum() == 1
    assert pixels[1, 1, 3] == 0


@pytest.mark.parametrize("kind", [GREY, RGB])
def test_gamma_of_srgb_needs_no_profile_and_others_get_theirs(kind: int, tmp_path: Path) -> None:
    def found(before: bytes) -> ImageInfo:
        return read(tmp_path / "a.png", png(some(kind), kind, before=before))[1]

    for before in (gama(0.45455), gama(0.4550) + chrm(SRGB_PRIMARIES), chrm(SRGB_PRIMARIES), gama(1.0) + SRGB):
        assert found(before).icc is None
    assert found(gama(1 / 1.8)).icc is not None
    assert (found(gama(1 / 2.2) + chrm(ADOBE_PRIMARIES)).icc is not None) == (kind == RGB)


SRGB = chunk(b"sRGB", b"\0")
P3_CICP, PQ_CICP = chunk(b"cICP", bytes((12, 13, 0, 1))), chunk(b"cICP", bytes((9, 16, 0, 1)))


def test_linear_rgb_by_gamma_is_converted_to_srgb(tmp_path: Path) -> None:
    values = np.full((5, 7, 3), 128)
    pixels, info, notices = read(tmp_path / "a.png", png(values, RGB, before=gama(1.0)))
    assert abs(pixels.astype(int) - 188).max() <= 1  # 0.5 in linear light is 0.735 in sRGB
    assert info.icc is not None
    assert is_srgb(info.icc)
    assert len(notices) == 1


def test_the_first_statement_about_colour_wins(tmp_path: Path) -> None:
    def found(before: bytes) -> bytes | None:
        return read(tmp_path / "a.png", png(some(RGB), RGB, before=before))[1].icc

    rest = gama(1.0) + chrm(ADOBE_PRIMARIES)
    p3 = found(P3_CICP + profile_chunk(ADOBE) + rest)
    assert p3 is not None
    assert p3 not in (ADOBE, b"")
    assert not is_srgb(p3)
    assert b"cicp" in p3
    assert found(rest + profile_chunk(ADOBE) + P3_CICP) == p3
    assert found(profile_chunk(ADOBE) + rest) == ADOBE
    assert found(profile_chunk(ADOBE) + SRGB) == ADOBE
    assert found(SRGB + rest) is None
    assert found(chunk(b"cICP", bytes((1, 13, 0, 1))) + profile_chunk(ADOBE)) is None
    assert found(chunk(b"cICP", bytes((2, 2, 0, 1))) + profile_chunk(ADOBE)) == ADOBE


@pytest.mark.parametrize("kind", [GREY, RGB])
def test_pq_by_cicp_is_converted(kind: int, tmp_path: Path) -> None:
    values = np.full((5, 7, CHANNELS[kind]), 148)  # 58 % of PQ is 203 cd/m2, HDR reference white
    pixels, _, notices = read(tmp_path / "a.png", png(values, kind, before=PQ_CICP))
    assert pixels.min() >= 245
    assert len(notices) == 1


@pytest.mark.parametrize("depth", [8, 16])
def test_narrow_range_by_cicp_is_spread_with_a_notice(depth: int, tmp_path: Path) -> None:
    unit = 1 if depth == 8 else 256
    values = np.array([[[0], [16], [126], [235], [255]]]).repeat(2, 2) * unit  # grey, and alpha, which is never narrow
    before = chunk(b"cICP", bytes((1, 13, 0, 0)))
    pixels, _, notices = read(tmp_path / "a.png", png(values, GREY_ALPHA, depth, before=before))
    full = 2**depth - 1
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 0, round(110 / 219 * full), full, full])
    np.testing.assert_array_equal(pixels[0, :, 1], values[0, :, 1])
    assert notices == ("values of video's narrow range were spread over the full range",)


def test_colours_that_are_unknown_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="matrix coefficients 1, which is not read"):
        read(tmp_path / "a.png", png(some(RGB), RGB, before=chunk(b"cICP", bytes((1, 13, 1, 1)))))
    unknown = chunk(b"cICP", bytes((77, 13, 0, 1)))
    _, info, notices = read(tmp_path / "a.png", png(some(RGB), RGB, before=unknown + profile_chunk(ADOBE)))
    assert info.icc == ADOBE
    assert notices == ("the cICP chunk names unknown colours (77, 13) and was left out",)
    _, info, notices = read(tmp_path / "a.png", png(some(RGB), RGB, before=chunk(b"gAMA", bytes(4))))
    assert (info.icc, len(notices)) == (None, 1)


def raw_text(kind: str, data: bytes, name: bytes) -> bytes:
    """A text chunk as ImageMagick writes metadata: by name, length, and hexadecimal lines."""
    digits = data.hex().encode()
    lines = b"\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    text = b"\n" + kind.encode() + b"\n%8d\n" % len(data) + lines + b"\n"
    keyword = b"Raw profile type " + kind.encode() + b"\0"
    if name == b"tEXt":
        return chunk(name, keyword + text)
    return chunk(name, keyword + b"\0" + zlib.compress(text))


@pytest.mark.parametrize(
    "stored",
    [
        chunk(b"eXIf", EXIF),
        chunk(b"eXIf", b"Exif\0\0" + EXIF),
        raw_text("exif", b"Exif\0\0" + EXIF, b"zTXt"),
        raw_text("APP1", b"Exif\0\0" + EXIF, b"tEXt"),
    ],
)
@pytest.mark.parametrize("is_behind", [False, True])
def test_exif_is_found_wherever_it_stands(stored: bytes, is_behind: bool, tmp_path: Path) -> None:
    data = png(some(RGB), RGB, before=b"" if is_behind else stored, after=stored if is_behind else b"")
    _, info, notices = read(tmp_path / "a.png", data)
    assert (info.exif, notices) == (EXIF, ())


def test_exif_behind_the_pixels_turns_them(tmp_path: Path) -> None:
    values = some(RGB)
    after = chunk(b"eXIf", exif_block(orientation=6))
    pixels, info, _ = read(tmp_path / "a.png", png(values, RGB, after=after))
    np.testing.assert_array_equal(pixels, np.rot90(values, -1))
    assert info.pixels_per_mm == pytest.approx((300 / 25.4, 300 / 25.4))


@pytest.mark.parametrize(
    "stored",
    [
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0en\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0x\0" + zlib.compress(XMP)),
        raw_text("xmp", XMP, b"zTXt"),
        raw_text("APP1", b"http://ns.adobe.com/xap/1.0/\0" + XMP, b"zTXt"),
    ],
)
def test_xmp_is_found_wherever_it_stands(stored: bytes, tmp_path: Path) -> None:
    comment = chunk(b"tEXt", b"Comment\0XML:com.adobe.xmp")
    for data in (png(some(RGB), RGB, before=comment + stored), png(some(RGB), RGB, after=stored)):
        assert read(tmp_path / "a.png", data)[1].xmp == XMP


def test_resolution_is_read_where_it_has_a_unit(tmp_path: Path) -> None:
    for unit, expected in ((0, None), (1, (3.0, 4.0))):
        before = chunk(b"pHYs", struct.pack(">IIB", 3000, 4000, unit))
        assert read(tmp_path / "a.png", png(some(RGB), RGB, before=before))[1].pixels_per_mm == expected


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (chunk(b"eXIf", EXIF, damaged=True), b"", "eXIf"),
        (b"", chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0damaged"), "iTXt"),
        (b"", chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 99\n00\n")), "zTXt"),
        (chunk(b"iCCP", b"x\0\0no zlib"), b"", "colour profile"),
        (chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**26))), b"", "colour profile"),
        (chunk(b"acTL", struct.pack(">II", 3, 0)), b"", "animation of 3 frames was left out"),
    ],
)
def test_what_is_left_out_is_told(before: bytes, after: bytes, words: str, tmp_path: Path) -> None:
    values = some(RGB)
    pixels, info, notices = read(tmp_path / "a.png", png(values, RGB, before=before, after=after))
    np.testing.assert_array_equal(pixels, values)
    assert (info.exif, info.xmp, info.icc) == (None, None, None)
    assert len(notices) == 1
    assert words in notices[0]


def test_a_file_without_its_end_reads_with_a_notice_and_one_without_rows_does_not(tmp_path: Path) -> None:
    values = some(RGB)
    whole = png(values, RGB)
    for data in (png(values, RGB, end=False), whole[:-7]):
        pixels, _, notices = read(tmp_path / "a.png", data)
        np.testing.assert_array_equal(pixels, values)
        assert notices == ("the file has lost its end, behind the pixels; metadata there may be missing",)
    assert read(tmp_path / "a.png", whole + b"trailing bytes")[2] == ()
    for cut in range(12, len(whole) - 16, 5):
        with pytest.raises(InputError, match=r"truncated|damaged"):
            read(tmp_path / "a.png", whole[:cut])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(some(PALETTE, most=2), PALETTE, before=chunk(b"PLTE", bytes(6), damaged=True)), "PLTE chunk was cut"),
        (png(some(RGB), RGB, before=chunk(b"tRNS", bytes(6), damaged=True)), "tRNS chunk was cut"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", b"\x50\0\x20\2") + png(some(RGB), RGB)[8:], "CgBI"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"short"), "IHDR chunk was cut"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"IHDR", "IHDR chunk was cut"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"a\0b") * 9, "no IHDR"),
    ],
)
def test_damage_and_other_kinds_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path / "a.png", data)


def test_grey_with_a_grey_profile_keeps_it(tmp_path: Path) -> None:
    icc = grey_profile(2.2)
    assert read(tmp_path / "a.png", png(some(GREY), GREY, before=profile_chunk(icc)))[1].icc == icc


@pytest.mark.parametrize(("kind", "depth"), [(GREY, 16), (RGB, 8), (PALETTE, 4), (GREY_ALPHA, 8), (RGB_ALPHA, 8)])
def test_every_kind_reads_as_pillow_reads_it(kind: int, depth: int, tmp_path: Path) -> None:
    before = chunk(b"PLTE", np.random.default_rng(2).bytes(48)) if kind == PALETTE else b""
    pixels, _, _ = read(tmp_path / "a.png", png(some(kind, depth), kind, depth, before))
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.convert("RGB") if kind == PALETTE else image)
    np.testing.assert_array_equal(pixels, expected.reshape(pixels.shape))
