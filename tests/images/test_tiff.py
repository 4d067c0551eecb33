"""TIFF: what a directory says that its samples mean, against stored values, tifffile and Pillow."""

import itertools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from realesr.errors import InputError
from realesr.images.decoded import Decoded, ReadOptions
from realesr.images.decoding import decode
from realesr.images.reader import open_image

from .image_files import grey_profile, photo, rgb_profile
from .tiff_files import packed_bits, page, tiff

HEIGHT, WIDTH = 37, 45
Samples = NDArray[Any]


def noise(channels: int, bits: int = 8, seed: int = 0) -> Samples:
    """(H, W, C) of `bits` bit, in uint8 or uint16."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, (HEIGHT, WIDTH, channels)).astype(dtype)


def full_range(values: Samples, bits: int) -> Samples:
    top, full = 2**bits - 1, 255 if bits <= 8 else 65535
    scaled: Samples = np.round(values.astype(float) * full / top).astype(np.uint8 if bits <= 8 else np.uint16)
    return scaled


def decoded(path: Path, number: int | None = None) -> tuple[Decoded, Samples]:
    """What the opener hands on: its facts, and (H, W, C)."""
    facts = decode(path, "tiff", ReadOptions(page=number))
    pixels = facts.image.numpy()
    return facts, pixels if pixels.ndim == 3 else pixels[:, :, None]


def written(folder: Path, file: bytes) -> Path:
    path = folder / "a.tif"
    path.write_bytes(file)
    return path


def chunky(values: Samples, photometric: int, order: str = "<", rows: int = HEIGHT, **more: Any) -> bytes:
    """A file of 8 or 16 bit without compression."""
    stored = values.astype(f"{order}u{values.itemsize}")
    height, width, channels = values.shape
    pieces = [stored[top : top + rows].tobytes() for top in range(0, height, rows)]
    bits = [8 * values.itemsize] * channels
    return tiff(page(width, height, pieces, bits=bits, photometric=photometric, rows=rows, **more), order=order)


def refusal(path: Path, number: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        decoded(path, number)
    return str(caught.value)


COLOURS = {1: ("grey", 1), 2: ("rgb", 3), 5: ("cmyk", 4)}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", COLOURS)
@pytest.mark.parametrize("extras", [(), (2,), (0,), (0, 2), (2, 0, 0), (0, 0), (0, 0, 2, 1)])
@pytest.mark.parametrize("is_planar", [False, True])
def test_extra_samples_decide_what_is_alpha(
    bits: int, photometric: int, extras: tuple[int, ...], is_planar: bool, tmp_path: Path
) -> None:
    space, channels = COLOURS[photometric]
    values = noise(channels + len(extras), bits)
    stated: dict[str, Any] = {"t338": list(extras)} if extras else {}
    file = chunky(values, photometric, ">", **stated)
    if is_planar:
        planes = [values[:, :, i].astype(values.dtype.newbyteorder("<")).tobytes() for i in range(values.shape[2])]
        one = page(WIDTH, HEIGHT, planes, bits=[bits] * len(planes), photometric=photometric, t284=2, **stated)
        file = tiff(one)
    facts, pixels = decoded(written(tmp_path, file))
    kept = [*range(channels), *([channels + extras.index(2)] if 2 in extras else [])]
    np.testing.assert_array_equal(pixels, values[:, :, kept])
    assert (facts.space, facts.has_alpha, facts.bits) == (space, 2 in extras, bits)
    dropped = len(extras) - (2 in extras)
    assert len(facts.notices) == bool(dropped)
    assert not dropped or f"{dropped} channel" in facts.notices[0]


def test_extra_samples_that_are_not_stated_are_no_alpha(tmp_path: Path) -> None:
    facts, pixels = decoded(written(tmp_path, chunky(noise(4), 2)))
    np.testing.assert_array_equal(pixels, noise(4)[:, :, :3])
    assert facts.notices == ("1 channel beyond colour dropped: the file does not say what it is",)
    facts, pixels = decoded(written(tmp_path, chunky(noise(6), 2, t338=[0, 2])))
    np.testing.assert_array_equal(pixels, noise(6)[:, :, [0, 1, 2, 4]])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("photometric", "channels"), [(0, 1), (1, 1), (2, 3), (5, 4)])
def test_associated_alpha_is_divided_out(bits: int, photometric: int, channels: int, tmp_path: Path) -> None:
    values, top = noise(channels + 2, bits), 2**bits - 1
    alpha = values[:, :, -1:].astype(float)
    alpha[0], alpha[1] = 0, top
    stored = values.copy()
    stored[:, :, -1:] = alpha
    stored[:, :, :channels] = values[:, :, :channels] * (alpha / top)
    stored[2, :, 0] = top  # above its alpha, which no colour can be
    facts, pixels = decoded(written(tmp_path, chunky(stored, photometric, t338=[0, 1])))
    with np.errstate(divide="ignore", invalid="ignore"):
        straight = np.where(alpha > 0, stored[:, :, :channels] * (top / alpha), 0)
    expected = np.clip(straight, 0, top)
    if photometric == 0:
        expected = top - expected
    assert facts.has_alpha
    np.testing.assert_array_equal(pixels[:, :, -1:], alpha)
    assert np.abs(pixels[:, :, :-1] - expected).max() < 0.51


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize(
    ("photometric", "layout"), [(0, "strips"), (1, "tiles"), (2, "strips"), (2, "tiles"), (2, "planes")]
)
def test_depths_of_1_to_16_bit_fill_the_range(bits: int, photometric: int, layout: str, tmp_path: Path) -> None:
    channels = 3 if photometric == 2 else 1
    values, order = noise(channels, bits), "<" if bits % 2 else ">"
    stated: dict[str, Any] = {"rows": 8}

    def piece(samples: Samples) -> bytes:
        rows = samples.reshape(len(samples), -1)
        whole = rows.astype(f"{order}u{rows.itemsize}").tobytes() if bits in (8, 16) else packed_bits(rows, bits)
        return zlib.compress(whole)

    pieces = [piece(values[top : top + 8]) for top in range(0, HEIGHT, 8)]
    if layout == "tiles":
        padded = np.pad(values, ((0, -HEIGHT % 16), (0, -WIDTH % 32), (0, 0)))
        corners = itertools.product(range(0, HEIGHT, 16), range(0, WIDTH, 32))
        pieces, stated = [piece(padded[y : y + 16, x : x + 32]) for y, x in corners], {"tile": (32, 16)}
    if layout == "planes":
        pieces = [piece(values[top : top + 8, :, i]) for i in range(3) for top in range(0, HEIGHT, 8)]
        stated["t284"] = 2
    one = page(WIDTH, HEIGHT, pieces, bits=[bits] * channels, photometric=photometric, t259=8, **stated)
    facts, pixels = decoded(written(tmp_path, tiff(one, order=order, big=bits % 3 == 0)))
    expected = full_range(values, bits)
    np.testing.assert_array_equal(pixels, np.iinfo(expected.dtype).max - expected if photometric == 0 else expected)
    assert facts.bits == (8 if bits <= 8 else 16)


@pytest.mark.parametrize("form", ["int8", "int16", "uint32", "uint64", "float16", "float32", "complex64"])
def test_samples_without_a_known_range_are_refused_by_name(form: str, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 5, 3), form), photometric="rgb", metadata=None)
    message = refusal(tmp_path / "a.tif")
    assert "expected" in message
    assert "damaged" not in message


def test_channels_of_different_depths_are_refused_by_name(tmp_path: Path) -> None:
    one = page(4, 4, [bytes(40)], bits=[5, 6, 5], photometric=2)
    assert "channels of 5, 6, 5 bit, expected one depth" in refusal(written(tmp_path, tiff(one)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["colour", "grey", "8-bit map"])
@pytest.mark.parametrize("extra", [False, True])
def test_palettes_become_their_colours(bits: int, kind: str, extra: bool, tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 65536, (2**bits, 3)).astype(np.uint16)
    colours[-1, 0] = 65535
    if kind == "grey":
        colours[:] = colours[:, :1]
    stored: Samples = colours >> 8 if kind == "8-bit map" else colours
    exact: Samples = (stored if bits == 16 else colours >> 8).astype(np.uint16)
    if kind == "8-bit map" and bits == 16:
        exact = stored * 257
    values = noise(1 + extra, bits)
    more: dict[str, Any] = {"t338": [2]} if extra else {}
    whole = values.tobytes() if bits in (8, 16) else packed_bits(values.reshape(HEIGHT, -1), bits)
    one = page(WIDTH, HEIGHT, [whole], bits=[bits] * (1 + extra), photometric=3, t320=stored.T.ravel().tolist(), **more)
    facts, pixels = decoded(written(tmp_path, tiff(one)))
    channels = 1 if kind == "grey" else 3
    assert (facts.space, facts.has_alpha) == ("grey" if kind == "grey" else "rgb", extra)
    np.testing.assert_array_equal(pixels[:, :, :channels], exact[values[:, :, 0]][:, :, :channels])
    if extra:
        np.testing.assert_array_equal(pixels[:, :, -1], full_range(values[:, :, 1], bits))


def test_a_colour_map_that_is_too_short_is_named(tmp_path: Path) -> None:
    assert "colour map has 30 values, expected 768" in refusal(written(tmp_path, chunky(noise(1), 3, t320=[9] * 30)))


def test_a_transparency_mask_is_read_as_grey_with_a_notice(tmp_path: Path) -> None:
    values = noise(1, 1)
    one = page(WIDTH, HEIGHT, [packed_bits(values[:, :, 0], 1)], bits=[1], photometric=4, t254=4)
    facts, pixels = decoded(written(tmp_path, tiff(one)))
    np.testing.assert_array_equal(pixels, values * 255)
    assert "transparency mask" in facts.notices[0]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("photometric", "zero"), [(8, 0), (9, 128)])
def test_lab_has_its_a_and_b_where_the_file_says(bits: int, photometric: int, zero: int, tmp_path: Path) -> None:
    lightness, a, b = np.array([0, 25, 50, 100]), np.array([-128, -1, 0, 100]), np.array([127, 20, -20, -3])
    white = {(8, 8): 255, (8, 9): 255, (16, 8): 65535, (16, 9): 65280}[bits, photometric]
    unit = 2 ** (bits - 8)
    stored = np.stack([np.round(lightness * white / 100), (a + zero) * unit, (b + zero) * unit], axis=1)
    values = (stored.astype(int) % 2**bits).astype(f"uint{bits}").reshape(1, 4, 3)
    facts, pixels = decoded(written(tmp_path, chunky(values, photometric, ">", rows=1)))
    assert (facts.space, facts.bits, facts.has_alpha) == ("lab", bits, False)
    assert np.abs(pixels[0, :, 0] / 327.67 - lightness).max() < (0.25 if bits == 8 else 0.01)
    np.testing.assert_array_equal(pixels[0, :, 1:] / 256, np.stack([a, b], axis=1))


def test_lab_agrees_with_pillow_and_drops_its_alpha(tmp_path: Path) -> None:
    values = np.full((2, 2, 4), (128, 40, 256 - 60, 9), np.uint8)
    path = written(tmp_path, chunky(values, 8, rows=2, t338=[2]))
    same = Image.frombytes("LAB", (1, 1), bytes((128, 40, 256 - 60)))
    expected = ImageCms.profileToProfile(
        same, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    with open_image(path) as reader:
        assert np.abs(reader.read_rows(2)[0, 0].astype(int) - np.asarray(expected)[0, 0]).max() <= 2
        assert "Lab's alpha channel was dropped" in reader.notices
    lightness_only, pixels = decoded(written(tmp_path, chunky(values[:, :, :1], 8, rows=2)))
    assert lightness_only.space == "lab"
    assert pixels[0, 0].tolist() == [16448, 0, 0]


def test_inks_other_than_cmyk_are_refused_by_their_names(tmp_path: Path) -> None:
    names = b"Orange\0Green\0Violet\0Black\0"
    message = refusal(written(tmp_path, chunky(noise(4), 5, t332=2, t333=names)))
    assert "4 inks (Orange, Green, Violet, Black)" in message
    assert "6 inks" in refusal(written(tmp_path, chunky(noise(6), 5, t334=6)))
    assert "3 inks" in refusal(written(tmp_path, chunky(noise(3), 5)))
    named_cmyk = chunky(noise(4), 5, t332=2, t333=b"Cyan\0Magenta\0Yellow\0Black\0")
    np.testing.assert_array_equal(decoded(written(tmp_path, named_cmyk))[1], noise(4))


def test_the_dot_range_of_cmyk_is_applied(tmp_path: Path) -> None:
    inverted = decoded(written(tmp_path, chunky(noise(5), 5, t336=[255, 0], t338=[2])))[1]
    np.testing.assert_array_equal(inverted, np.dstack([255 - noise(4 + 1)[:, :, :4], noise(5)[:, :, 4:]]))
    deep = decoded(written(tmp_path, chunky(noise(4, 16), 5, t336=[0, 255])))[1]
    np.testing.assert_array_equal(deep, noise(4, 16))  # the default of 8 bit, left in a deeper file
    narrow = decoded(written(tmp_path, chunky(noise(4), 5, t336=[10, 210] * 4)))[1]
    assert np.abs(narrow - np.clip((noise(4).astype(float) - 10) * 255 / 200, 0, 255)).max() <= 0.5


@pytest.mark.parametrize(
    ("photometric", "channels", "name"),
    [(10, 3, "ITU Lab"), (32803, 1, "camera's raw file (CFA"), (34892, 3, "camera's raw file (linear raw"),
     (32844, 1, "LogL"), (32845, 3, "LogLuv"), (77, 3, "PhotometricInterpretation 77"),
     (2, 2, "says that it is RGB, but has 2 channels")],
)  # fmt: skip
def test_what_is_not_read_is_refused_by_its_name(photometric: int, channels: int, name: str, tmp_path: Path) -> None:
    message = refusal(written(tmp_path, chunky(noise(channels), photometric)))
    assert name in message
    assert "damaged" not in message


def test_a_page_that_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    one = page(4, 4, [bytes(16)], bits=[8], photometric=None)
    assert "does not say what its samples mean" in refusal(written(tmp_path, tiff(one)))
    indexed = chunky(noise(4), 5, t346=1)
    assert "a palette of CMYK" in refusal(written(tmp_path, indexed))


@pytest.mark.parametrize(
    ("compression", "name"),
    [(6, "JPEG of the old style (TIFF 6.0)"), (9, "JBIG"), (33003, "JPEG 2000"), (33005, "JPEG 2000"), (34661, "JBIG"),
     (34712, "JPEG 2000"), (34887, "LERC"), (34925, "LZMA"), (50000, "Zstandard"), (50002, "JPEG XL"),
     (52546, "JPEG XL"), (34676, "SGI LogLuv"), (34713, "a camera's raw scheme"), (12345, "scheme 12345")],
)  # fmt: skip
def test_codecs_that_are_missing_are_named_and_the_file_is_not_called_damaged(
    compression: int, name: str, tmp_path: Path
) -> None:
    message = refusal(written(tmp_path, chunky(noise(3), 2, t259=compression)))
    assert f"is compressed with {name}, which is not read: save it with LZW or Deflate" in message
    assert "damaged" not in message


def test_jpeg_of_12_bit_is_named(tmp_path: Path) -> None:
    assert "JPEG of 12 bit" in refusal(written(tmp_path, tiff(page(8, 8, [b"x"], bits=[12], photometric=1, t259=7))))


@pytest.mark.parametrize("compression", ["zstd", "lzma", "lerc", "jpegxl", "jpeg2000", "webp"])
def test_files_that_tifffile_compresses_are_read_or_named(compression: str, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(3), photometric="rgb", compression=compression, metadata=None)
    if compression == "webp":  # lossless
        np.testing.assert_array_equal(decoded(path)[1], noise(3))
    else:
        assert "which is not read: save it with LZW or Deflate" in refusal(path)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw"])
@pytest.mark.parametrize("fill_order", [1, 2])
def test_bilevel_pages_read_as_pillow_reads_them(compression: str, fill_order: int, tmp_path: Path) -> None:
    image = Image.fromarray(photo(HEIGHT, WIDTH, 1)[:, :, 0] > 128)
    path = tmp_path / "a.tif"
    image.save(path, compression=compression, tiffinfo={266: fill_order})
    np.testing.assert_array_equal(decoded(path)[1][:, :, 0], np.asarray(image) * np.uint8(255))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_in_tiff_reads_as_pillow_reads_it(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(photo(HEIGHT, WIDTH)).convert(mode).save(path, compression="jpeg")
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB") if mode == "YCbCr" else image)
    np.testing.assert_array_equal(decoded(path)[1].squeeze(), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "options",
    [{"compression": "lzw", "predictor": True}, {"compression": "zlib", "predictor": True, "tile": (16, 32)},
     {"compression": "packbits", "rowsperstrip": 5}, {"bigtiff": True}, {"byteorder": ">", "rowsperstrip": 3},
     {"planarconfig": "separate", "compression": "lzw", "predictor": True, "rowsperstrip": 4},
     {"planarconfig": "separate", "tile": (32, 16), "byteorder": ">"}],
)  # fmt: skip
def test_every_layout_that_tifffile_writes_reads_exactly(dtype: str, options: dict[str, Any], tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = noise(4, 8 if dtype == "uint8" else 16)
    stored = np.moveaxis(values, 2, 0) if options.get("planarconfig") == "separate" else values
    stored = np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder(options.get("byteorder", "<"))))
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unassalpha"], metadata=None, **options
    )
    np.testing.assert_array_equal(decoded(tmp_path / "a.tif")[1], values)


@pytest.mark.parametrize("tile", [(10, 7), (64, 16), (5, 5), (8192, 16), (16, 10240)])
def test_tiles_of_odd_sizes_are_put_in_their_places(tile: tuple[int, int], tmp_path: Path) -> None:
    across, down = tile
    values = noise(3)
    padded = np.pad(values, ((0, -HEIGHT % down), (0, -WIDTH % across), (0, 0)))
    corners = itertools.product(range(0, HEIGHT, down), range(0, WIDTH, across))
    pieces = [padded[y : y + down, x : x + across].tobytes() for y, x in corners]
    path = written(tmp_path, tiff(page(WIDTH, HEIGHT, pieces, bits=[8] * 3, photometric=2, tile=tile)))
    np.testing.assert_array_equal(decoded(path)[1], values)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("photometric", [2, 6])
def test_pages_are_turned_as_their_orientation_says(orientation: int, photometric: int, tmp_path: Path) -> None:
    values = photo(HEIGHT, WIDTH)
    more: dict[str, Any] = {"t274": orientation, "t282": [(254, 1)], "t283": [(508, 1)]}
    path = written(tmp_path, chunky(values, photometric, t530=[1, 1], rows=8, **more))
    upright = (
        Image.fromarray(values) if photometric == 2 else Image.frombuffer("YCbCr", (WIDTH, HEIGHT), values.tobytes())
    )
    upright = upright.convert("RGB")
    upright.getexif()[274] = orientation
    facts, pixels = decoded(path)
    assert np.abs(pixels.astype(int) - np.asarray(ImageOps.exif_transpose(upright))).max() <= 1
    assert facts.was_turned == (orientation > 1)
    assert facts.pixels_per_mm == pytest.approx((20, 10) if orientation > 4 else (10, 20))


@pytest.mark.parametrize("photometric", [0, 1, 2, 6])
def test_profile_and_xmp_of_a_page_are_kept(photometric: int, tmp_path: Path) -> None:
    icc = grey_profile(2.2) if photometric < 2 else rgb_profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 2.2)
    file = chunky(noise(1 if photometric < 2 else 3), photometric, t34675=icc, t700=b"<x/>", t530=[1, 1])
    facts, _ = decoded(written(tmp_path, file))
    assert (facts.icc, facts.xmp) == (icc, b"<x/>")
