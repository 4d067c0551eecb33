"""Reading files: every format and mode against Pillow or against the values that were stored."""

import itertools
import os
import shutil
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image, ImageOps

from realesr.errors import InputError
from realesr.images.info import ImageInfo
from realesr.images.reader import IMAGE_SUFFIXES, open_image

from .image_files import photo

EXACT: dict[str, Any] = {"webp": {"lossless": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}


def read(path: Path, *, page: int = 0, rows_at_once: int = 7) -> tuple[NDArray[np.generic], ImageInfo]:
    with open_image(path, page=page) as reader:
        bands = []
        while len(rows := reader.read_rows(rows_at_once)):
            assert rows.flags.c_contiguous
            bands.append(rows)
        return np.concatenate(bands), reader.info


def png(width: int, height: int, depth: int, kind: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    """A PNG file byte by byte; `rows` are packed samples."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + extra + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm", "webp", "gif", "jpg", "avif"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 33)])
def test_rgb_reads_as_pillow_reads_it(suffix: str, size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(photo(*size)).save(path, **EXACT.get(suffix, {}))
    pixels, info = read(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert (info.width_px, info.height_px, info.bits, info.is_grey, info.has_alpha) == (
        size[1],
        size[0],
        8,
        False,
        False,
    )
    assert np.abs(pixels.astype(int) - expected).max() <= (2 if suffix in ("jpg", "avif") else 0)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *itertools.product(("1", "L", "P", "LA", "RGBA"), ("png", "tif")),
        *itertools.product(("L",), ("jpg", "bmp", "pgm", "gif")),
        *itertools.product(("1",), ("bmp", "pbm", "gif")),
        *itertools.product(("P", "RGBA"), ("gif", "bmp")),
        *itertools.product(("RGBA",), ("webp", "avif")),
    ],
)
def test_every_mode_reads_as_pillow_reads_it(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(photo(20, 30, 4), "RGBA").convert(mode if mode != "P" else "RGB")
    if mode == "P":
        image = image.quantize(16)
    image.save(path, **EXACT.get(suffix, {}))
    with Image.open(path) as stored:
        grey = mode in ("1", "L", "LA")
        alpha = "A" in stored.getbands() or "transparency" in stored.info
        expected = np.asarray(stored.convert(("L" if grey else "RGB") + "A" * alpha))
    pixels, info = read(path)
    assert (info.is_grey, info.has_alpha) == (grey, alpha)
    assert info.bits == 8
    difference = np.abs(pixels.astype(int) - expected.reshape(pixels.shape))
    assert difference.max() <= (2 if suffix in ("jpg", "avif") else 0)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_png_of_few_bits_spans_the_full_range(depth: int, tmp_path: Path) -> None:
    levels = 2**depth
    packed = int("".join(f"{value:0{depth}b}" for value in range(levels)).ljust(64, "0"), 2).to_bytes(8, "big")
    (tmp_path / "a.png").write_bytes(png(levels, 1, depth, 0, [packed[: (levels * depth + 7) // 8]]))
    pixels, info = read(tmp_path / "a.png")
    assert (info.bits, info.is_grey) == (8, True)
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(levels) * 255 // (levels - 1))


def test_transparent_colours_of_png_become_alpha(tmp_path: Path) -> None:
    def trns(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))

    (tmp_path / "rgb.png").write_bytes(png(2, 1, 8, 2, [bytes((1, 2, 3, 4, 5, 6))], trns(b"\0\4\0\5\0\6")))
    (tmp_path / "grey.png").write_bytes(png(2, 1, 16, 0, [b"\1\2\3\4"], trns(b"\1\2")))
    np.testing.assert_array_equal(read(tmp_path / "rgb.png")[0], [[[1, 2, 3, 255], [4, 5, 6, 0]]])
    np.testing.assert_array_equal(read(tmp_path / "grey.png")[0], [[[0x102, 0], [0x304, 65535]]])


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_values_are_exact(suffix: str, channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (11, 9, channels)).astype(np.uint16)
    image = pyvips.Image.new_from_array(values).copy(interpretation="grey16" if channels < 3 else "rgb16")
    image.write_to_file(str(tmp_path / f"a.{suffix}"))
    pixels, info = read(tmp_path / f"a.{suffix}")
    assert (info.bits, info.is_grey, info.has_alpha) == (16, channels < 3, channels in (2, 4))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, values)


def test_dark_16_bit_images_stay_16_bit(tmp_path: Path) -> None:
    pyvips.Image.new_from_array(np.ones((3, 3, 3), np.uint16)).copy(interpretation="rgb16").pngsave(
        str(tmp_path / "a.png")
    )
    assert read(tmp_path / "a.png")[1].bits == 16


@pytest.mark.parametrize(("magic", "channels"), [("P5", 1), ("P6", 3)])
@pytest.mark.parametrize("largest", [1023, 65535])
def test_16_bit_ppm_keeps_its_depth(magic: str, channels: int, largest: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, largest + 1, (3, 4, channels)).astype(">u2")
    values[0, 0] = largest
    (tmp_path / "a.ppm").write_bytes(f"{magic} # by hand\n4 3\n{largest}\n".encode() + values.tobytes())
    pixels, info = read(tmp_path / "a.ppm")
    assert (info.bits, info.is_grey, int(pixels.max())) == (16, channels == 1, 65535)
    np.testing.assert_allclose(pixels.astype(float) / 65535, values.astype(float) / largest, atol=1e-5)
    (tmp_path / "cut.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:-5])
    with pytest.raises(InputError, match="truncated"):
        read(tmp_path / "cut.ppm")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_applies_it(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo(12, 20)).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels, info = read(tmp_path / f"a.{suffix}")
    assert (info.height_px, info.width_px) == expected.shape[:2]
    assert np.abs(pixels.astype(int) - expected).max() <= (2 if suffix == "jpg" else 0)


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp"])
def test_pages_are_read_by_number(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    first, *others = (Image.new("RGB", (8, 6), colour) for colour in colours)
    options: dict[str, Any] = {} if suffix == "tif" else {"duration": 100}
    if suffix == "webp":
        options["lossless"] = True
    first.save(path, save_all=True, append_images=others, **options)
    for page, colour in enumerate(colours):
        np.testing.assert_array_equal(read(path, page=page)[0][0, 0, :3], colour)
    for page in (3, -1):
        with pytest.raises(InputError, match=f"has no page {page}: it has 3 pages, 0 to 2"):
            open_image(path, page=page)


def test_a_page_of_a_format_without_pages_is_refused(tmp_path: Path) -> None:
    Image.fromarray(photo(4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="has no page 1: it has only page 0"):
        open_image(tmp_path / "a.jpg", page=1)


@pytest.mark.parametrize(
    "name", ["photo[1].png", "photo [page=2].tif", "фото 写真.jpg", "it's 100%.webp", "a;b&c$d.bmp"]
)
def test_any_file_name_reads(name: str, tmp_path: Path) -> None:
    Image.fromarray(photo(5, 6)).save(tmp_path / name)
    assert read(tmp_path / name)[1].width_px == 6


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_a_file_name_that_is_not_utf8_reads(tmp_path: Path) -> None:
    Image.fromarray(photo(5, 6)).save(tmp_path / "a.png")
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png"))
    shutil.copy(tmp_path / "a.png", path)
    assert read(path)[1].width_px == 6


def test_a_png_named_jpg_reads_with_a_notice(tmp_path: Path) -> None:
    Image.fromarray(photo(5, 6)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    with open_image(tmp_path / "a.jpg") as reader:
        assert reader.info.format == "png"
        assert reader.notices == ("a.jpg holds PNG data, not JPEG; it was read as PNG",)


def test_bad_inputs_are_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello there, this is no image")
    (tmp_path / "zeros.png").write_bytes(b"\0" * 100)
    (tmp_path / "raw.dng").write_bytes(b"II*\0" + b"\0" * 100)
    (tmp_path / "head.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "tiff.tif").write_bytes(b"II*\0\xff\xff\xff\xff")
    (tmp_path / "jpeg.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 50)
    (tmp_path / "bmp.bmp").write_bytes(b"BM" + b"\0" * 50)
    (tmp_path / "ppm.ppm").write_bytes(b"P6 4 x")
    cases = {
        "missing.jpg": "does not exist",
        "": "is a folder",
        "empty.jpg": "is empty",
        "text.jpg": "is not an image: it begins with 'hello there, thi', expected JPEG",
        "zeros.png": "begins with the bytes 00 00",
        "raw.dng": "camera's raw file",
        "head.png": "damaged",
        "tiff.tif": "damaged",
        "jpeg.jpg": "damaged",
        "bmp.bmp": "damaged",
        "ppm.ppm": "damaged",
    }
    for name, words in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            open_image(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="no permissions to lack")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "a.jpg").chmod(0)
    with pytest.raises(InputError, match="may not be read"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif", "avif", "bmp", "ppm"])
def test_a_truncated_file_raises_and_never_gives_made_up_rows(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=r"truncated|damaged") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_rows_before_the_cut_can_still_be_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (800, 100, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[: 240_000 * 8 // 10])
    with open_image(tmp_path / "a.png") as reader:
        np.testing.assert_array_equal(reader.read_rows(16), pixels[:16])
        with pytest.raises(InputError, match=r"near row \d+ of 800"):
            while len(reader.read_rows(16)):
                pass


def test_a_bit_flipped_in_png_data_raises(tmp_path: Path) -> None:
    Image.fromarray(photo(60, 60)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "ppm", "tif"])
def test_too_many_pixels_are_refused_before_decoding(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(photo(10, 11)).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match="11 x 10 = 110 px, expected at most 109") as caught:
        open_image(tmp_path / f"a.{suffix}", max_pixels=109)
    assert caught.value.option == "max_pixels"
    open_image(tmp_path / f"a.{suffix}", max_pixels=110).close()


def test_a_decompression_bomb_is_refused_without_a_limit_given(tmp_path: Path) -> None:
    row = b"\0" * 12_500
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000, 1, 0, [row] * 3))
    (tmp_path / "bomb.bmp").write_bytes(
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *[0] * 6)
    )
    for name in ("bomb.png", "bomb.bmp"):
        with pytest.raises(InputError, match="expected at most 1,000,000,000"):
            open_image(tmp_path / name)


@pytest.mark.parametrize("form", ["float", "double", "uint", "short", "int", "complex"])
def test_pixels_of_unknown_range_are_refused(form: str, tmp_path: Path) -> None:
    pyvips.Image.black(4, 4, bands=3).cast(form).tiffsave(str(tmp_path / "a.tif"))
    with pytest.raises(InputError, match=f"has {form} pixels|damaged"):
        read(tmp_path / "a.tif")


def test_channels_beyond_alpha_are_dropped_with_a_notice(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 6, 6)).astype(np.uint8)
    pyvips.Image.new_from_array(values).copy(interpretation="srgb").tiffsave(str(tmp_path / "a.tif"))
    with open_image(tmp_path / "a.tif") as reader:
        assert reader.notices == ("2 channels beyond colour and alpha dropped",)
        np.testing.assert_array_equal(reader.read_rows(5), values[:, :, :4])


@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk_with_alpha_keeps_its_alpha_and_depth(bits: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (5, 6, 5)).astype(f"uint{bits}")
    pyvips.Image.new_from_array(values).copy(interpretation="cmyk").tiffsave(str(tmp_path / "a.tif"))
    pixels, info = read(tmp_path / "a.tif")
    assert (info.bits, info.channels) == (bits, 4)
    np.testing.assert_array_equal(pixels[:, :, 3], values[:, :, 4])


def test_constant_alpha_is_told_and_leaves_the_rows_unread(tmp_path: Path) -> None:
    pixels = photo(600, 20, 4)
    cases: list[tuple[int | None, NDArray[np.uint8]]] = [(None, pixels)]
    for value in (0, 77, 255):
        constant = pixels.copy()
        constant[:, :, 3] = value
        cases.append((value, constant))
    last = pixels.copy()
    last[:, :, 3] = 255
    last[-1, -1, 3] = 254
    cases.append((None, last))
    for expected, array in cases:
        Image.fromarray(array).save(tmp_path / "a.png")
        with open_image(tmp_path / "a.png") as reader:
            reader.read_rows(5)
            assert reader.constant_alpha() == expected
            np.testing.assert_array_equal(reader.read_rows(9), array[5:14])
    Image.fromarray(pixels[:, :, :3]).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as reader:
        assert reader.constant_alpha() is None


def test_heic_reads_turned_and_in_its_depth(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.fromarray(photo(32, 48))).save(tmp_path / "a.heic", quality=-1, chroma=444)
    pixels, info = read(tmp_path / "a.heic")
    assert (info.format, info.bits, info.channels) == ("heic", 8, 3)
    assert np.abs(pixels.astype(int) - photo(32, 48)).mean() < 2
    deep = (photo(32, 48).astype(np.uint16) * 257).astype(np.uint16)
    pillow_heif.encode("RGB;16", (48, 32), deep.tobytes(), tmp_path / "b.heic", quality=-1, chroma=444)
    pixels, info = read(tmp_path / "b.heic")
    assert info.bits == 16
    assert np.abs(pixels.astype(int) - deep).mean() < 600
    with pytest.raises(InputError, match="has no page 1"):
        open_image(tmp_path / "a.heic", page=1)
    (tmp_path / "cut.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:300])
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "cut.heic")


def test_heic_without_its_package_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50)
    with pytest.raises(InputError, match="pip install pillow-heif"):
        open_image(tmp_path / "a.heic")


def test_suffixes_are_lower_case_with_a_dot() -> None:
    assert {
        ".jpg",
        ".jpeg",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
        ".avif",
        ".gif",
        ".bmp",
        ".ppm",
        ".heic",
    } <= IMAGE_SUFFIXES
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


@pytest.mark.parametrize(
    "options", [{"tile": True}, {"compression": "lzw"}, {"bigtiff": True}, {"pyramid": True, "tile": True}]
)
def test_tiff_of_every_layout_reads(options: dict[str, Any], tmp_path: Path) -> None:
    pyvips.Image.new_from_array(photo(300, 150)).tiffsave(str(tmp_path / "a.tif"), **options)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0], photo(300, 150))


def test_interlaced_png_and_progressive_jpeg_read(tmp_path: Path) -> None:
    pyvips.Image.new_from_array(photo(90, 70)).pngsave(str(tmp_path / "a.png"), interlace=True)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], photo(90, 70))
    Image.fromarray(photo(90, 70)).save(tmp_path / "a.jpg", progressive=True)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.abs(read(tmp_path / "a.jpg")[0].astype(int) - np.asarray(image)).max() <= 2


def test_associated_alpha_of_tiff_is_divided_out(tmp_path: Path) -> None:
    pixels = np.array([[[200, 100, 50, 128], [10, 20, 30, 255]]], np.uint8)
    pyvips.Image.new_from_array(pixels).copy(interpretation="srgb").tiffsave(str(tmp_path / "a.tif"), premultiply=True)
    with Image.open(tmp_path / "a.tif") as stored:
        assert stored.tag_v2[338] in (1, (1,))  # type: ignore[attr-defined]
    assert np.abs(read(tmp_path / "a.tif")[0].astype(int) - pixels).max() <= 1
