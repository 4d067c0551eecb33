"""AVIF and HEIC: what the file says about its images decides what is read; against Pillow and stored values."""

import io
import random
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import InputError
from realesr.images.formats.av1_header import Av1Colours, av1_colours
from realesr.images.info import ImageInfo
from realesr.images.reader import open_image

from .heif_files import Layout, Part, Reference, alpha_of, box, clap, coded, grid, heif, ispe, nclx, pixi
from .image_files import P3_PRIMARIES, XMP, exif_block, grey_profile, rgb_profile

WIDTH, HEIGHT = 64, 48
ALPHA = (Reference(b"auxl", 1, (0,)),)
PREMULTIPLIED = (*ALPHA, Reference(b"prem", 0, (1,)))
Coded = tuple[bytes, bytes]


def read(path: Path, **options: Any) -> tuple[NDArray[Any], ImageInfo, tuple[str, ...]]:
    with open_image(path, **options) as reader:
        return reader.read_rows(reader.info.height_px), reader.info, reader.notices


def ramps(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), 255 - x * 255 // (width - 1)], 2).astype(np.uint8)


def flat(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), colour, np.uint8)


def av1(pixels: NDArray[np.uint8], subsampling: str = "4:4:4", **options: Any) -> Coded:
    """Pixels coded by libavif: its configuration box and data."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", quality=100, subsampling=subsampling, **options)
    return coded(file.getvalue())


@cache
def deep_av1(bits: int) -> Coded:
    """The codes of `codes(bits)`, all channels alike, coded by libvips without loss."""
    values = np.repeat((codes(bits) << (16 - bits))[:, :, None], 3, 2).astype(np.uint16)
    image = pyvips.Image.new_from_array(values).copy(interpretation="rgb16")
    return coded(
        image.heifsave_buffer(bitdepth=bits, lossless=True, compression="av1", subsample_mode="off", keep="none")
    )


def codes(bits: int) -> NDArray[np.int64]:
    """(48, 64): the lowest code to the highest."""
    row = np.linspace(0, 2**bits - 1, WIDTH).round().astype(np.int64)
    return np.broadcast_to(row, (HEIGHT, WIDTH))


def part(image: Coded, *properties: bytes, bits: tuple[int, ...] = (8, 8, 8), **options: Any) -> Part:
    size = options.pop("size", (WIDTH, HEIGHT))
    return Part(b"av01", image[1], (ispe(*size), pixi(*bits), image[0], *properties), **options)


def write(path: Path, parts: list[Part], **options: Any) -> Path:
    path.write_bytes(heif(parts, Layout(**options)))
    return path


RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


@cache
def three() -> tuple[Part, Part, Part]:
    return part(av1(flat(RED))), part(av1(flat(GREEN))), part(av1(flat(BLUE)))


def colour_of(path: Path, **options: Any) -> tuple[int, ...]:
    pixels = read(path, **options)[0].reshape(-1, 3)
    assert int(np.ptp(pixels, axis=0).max()) <= 2
    return min((RED, GREEN, BLUE), key=lambda colour: int(np.abs(pixels[0].astype(int) - colour).sum()))


@pytest.mark.parametrize("ids", [(1, 2, 3), (9, 4, 6), (3, 2, 1)])
@pytest.mark.parametrize("primary", [0, 1, 2])
def test_the_primary_item_is_read_wherever_it_stands(ids: tuple[int, ...], primary: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.avif", list(three()), primary=primary, ids=ids)
    colours = (RED, GREEN, BLUE)
    assert colour_of(path) == colours[primary]
    by_id = [colours[i] for i in sorted(range(3), key=lambda i: ids[i])]
    assert [colour_of(path, page=page) for page in range(3)] == by_id
    with pytest.raises(InputError, match="no page 3: it has 3 pages"):
        open_image(path, page=3)


def test_a_missing_primary_image_is_not_replaced_by_another(tmp_path: Path) -> None:
    file = heif(list(three()), Layout())
    at = file.index(b"pitm") + 8
    (tmp_path / "a.avif").write_bytes(file[:at] + b"\0\x09" + file[at + 2 :])
    with pytest.raises(InputError, match="item 9, is missing"):
        open_image(tmp_path / "a.avif")
    assert colour_of(tmp_path / "a.avif", page=1) == GREEN


@pytest.mark.parametrize("layout", [{"in_idat": True}, {"wide": True}, {"ids": (70_000, 5, 70_001), "wide": True}])
def test_data_in_idat_and_wide_ids_are_read(layout: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.avif", list(three()), primary=1, **layout)
    assert colour_of(path) == GREEN


@pytest.mark.parametrize("is_hidden", [True, False])
def test_tiles_thumbnails_alpha_and_depth_maps_are_no_pages(is_hidden: bool, tmp_path: Path) -> None:
    red, green, blue = (part(av1(flat(c)), is_hidden=is_hidden) for c in (RED, GREEN, BLUE))
    depth = part(av1(flat(RED)), box(b"auxC", b"\0\0\0\0urn:mpeg:hevc:2015:auxid:2\0"), is_hidden=is_hidden)
    whole = Part(b"grid", grid(1, 2, 128, HEIGHT), (ispe(128, HEIGHT), pixi(8, 8, 8)))
    recipe = Part(b"tmap", b"\0" * 20, (ispe(128, HEIGHT),))
    references = (
        Reference(b"dimg", 4, (0, 1)),
        Reference(b"thmb", 2, (4,)),
        Reference(b"auxl", 3, (4,)),
        Reference(b"dimg", 5, (4, 2)),
    )
    path = write(tmp_path / "a.avif", [red, green, blue, depth, whole, recipe], primary=4, references=references)
    pixels, info, notices = read(path)
    assert (info.width_px, info.height_px, info.channels, notices) == (128, HEIGHT, 3, ())
    assert np.abs(pixels[:, :64].astype(int) - RED).max() <= 2
    assert np.abs(pixels[:, 64:].astype(int) - GREEN).max() <= 2
    np.testing.assert_array_equal(read(path, page=0)[0], pixels)
    with pytest.raises(InputError, match="only page 0"):
        open_image(path, page=1)


def test_the_primary_of_a_heic_file_is_read(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = pillow_heif.HeifFile()
    for colour in (BLUE, RED, GREEN):
        file.add_from_pillow(Image.fromarray(flat(colour)))
    file.save(tmp_path / "a.heic", primary_index=1, quality=95)
    assert colour_of(tmp_path / "a.heic") == RED
    assert [colour_of(tmp_path / "a.heic", page=page) for page in range(3)] == [BLUE, RED, GREEN]


def unmultiplied(colour: NDArray[Any], most: int, alpha: NDArray[Any], most_alpha: int, top: int) -> NDArray[Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.rint(colour.astype(float) * top * most_alpha / (alpha.astype(float) * most))
    return np.where(alpha == 0, 0, np.minimum(exact, top))


def test_premultiplied_alpha_of_avif_is_divided_out(tmp_path: Path) -> None:
    alpha = codes(8).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([ramps(), alpha]))
    rgba.save(tmp_path / "a.avif", quality=100, subsampling="4:4:4", alpha_premultiplied=True)
    pixels, info, _ = read(tmp_path / "a.avif")
    assert (info.channels, info.bits) == (4, 8)
    stored = pyvips.Image.new_from_file(str(tmp_path / "a.avif")).numpy()
    np.testing.assert_array_equal(pixels[..., 3], stored[..., 3])
    expected = unmultiplied(stored[..., :3], 255, stored[..., 3:], 255, 255)
    np.testing.assert_array_equal(pixels[..., :3], expected)
    by_libavif = np.asarray(Image.open(tmp_path / "a.avif"))
    # Its conversion from YCbCr rounds in another way, which small alpha would multiply.
    assert np.abs(pixels[alpha > 127].astype(int) - by_libavif[alpha > 127]).max() <= 3


def test_premultiplied_alpha_of_heic_is_divided_out(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    alpha = codes(8)
    stored = np.dstack([ramps() * alpha[..., None] // 255, alpha]).astype(np.uint8)
    pillow_heif.encode("RGBa", (WIDTH, HEIGHT), stored.tobytes(), tmp_path / "a.heic", quality=-1, chroma=444)
    pixels, _, _ = read(tmp_path / "a.heic")
    decoded = np.asarray(pillow_heif.open_heif(tmp_path / "a.heic")[0])
    assert np.abs(decoded.astype(int) - stored).max() <= 1  # libheif does not divide
    expected = unmultiplied(decoded[..., :3], 255, decoded[..., 3:], 255, 255)
    np.testing.assert_array_equal(pixels[..., :3], expected)
    np.testing.assert_array_equal(pixels[..., 3], decoded[..., 3])


@pytest.mark.parametrize(("bits", "alpha_bits"), [(10, 8), (12, 8), (8, 10), (8, 12), (10, 12), (10, 10), (8, 8)])
@pytest.mark.parametrize("references", [ALPHA, PREMULTIPLIED], ids=["straight", "premultiplied"])
def test_alpha_may_have_another_depth_than_the_colours(
    bits: int, alpha_bits: int, references: tuple[Reference, ...], tmp_path: Path
) -> None:
    colours = part(deep_av1(bits), bits=(bits,) * 3)
    alpha = part(deep_av1(alpha_bits), alpha_of(), bits=(alpha_bits,))
    pixels, info, _ = read(write(tmp_path / "a.avif", [colours, alpha], references=references))
    top = 255 if bits == alpha_bits == 8 else 65535
    assert (info.bits, info.channels) == (8 if top == 255 else 16, 4)
    most, most_alpha = 2**bits - 1, 2**alpha_bits - 1
    np.testing.assert_array_equal(pixels[..., 3], np.rint(codes(alpha_bits) * (top / most_alpha)))
    straight = np.rint(codes(bits) * (top / most))
    divided = unmultiplied(codes(bits), most, codes(alpha_bits), most_alpha, top)
    np.testing.assert_array_equal(pixels[..., 0], straight if references == ALPHA else divided)


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_covers_the_full_range(bits: int, tmp_path: Path) -> None:
    pixels, info, _ = read(write(tmp_path / "a.avif", [part(deep_av1(bits), bits=(bits,) * 3)]))
    assert (info.bits, int(pixels.max())) == (16, 65535)
    np.testing.assert_array_equal(pixels[..., 1], np.rint(codes(bits) * (65535 / (2**bits - 1))))


@pytest.mark.parametrize("mode", ["RGB;16", "RGBA;16", "L;16"])
@pytest.mark.parametrize("bits", [10, 12])
def test_deep_heic_covers_the_full_range(mode: str, bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    channels = {"RGB;16": 3, "RGBA;16": 4, "L;16": 1}[mode]
    values = np.repeat(codes(16)[:, :, None], channels, 2).astype(np.uint16)
    pillow_heif.encode(mode, (WIDTH, HEIGHT), values.tobytes(), tmp_path / "a.heic", quality=-1, chroma=444)
    pixels, info, _ = read(tmp_path / "a.heic")
    assert (info.bits, info.channels) == (16, channels)
    decoded = np.asarray(pillow_heif.open_heif(tmp_path / "a.heic", convert_hdr_to_8bit=False)[0])
    stored = decoded.reshape(HEIGHT, WIDTH, channels).astype(np.int64) >> (16 - bits)
    np.testing.assert_array_equal(pixels, np.rint(stored * (65535 / (2**bits - 1))))
    assert (pixels[:, 0].max(), pixels[:, -1].min()) == (0, 65535)


@pytest.mark.parametrize("value_range", ["full", "limited"])
@pytest.mark.parametrize("has_nclx", [True, False])
@pytest.mark.parametrize("has_alpha", [True, False])
def test_monochrome_avif_is_grey(value_range: str, has_nclx: bool, has_alpha: bool, tmp_path: Path) -> None:
    values = codes(8).astype(np.uint8)
    own = (nclx(1, 13, 6, value_range == "full"),) if has_nclx else ()
    parts = [part(av1(values, "4:0:0", range=value_range), *own, bits=(8,))]
    if has_alpha:
        parts.append(part(av1(values, "4:0:0"), alpha_of(), bits=(8,)))
    path = write(tmp_path / "a.avif", parts, references=ALPHA if has_alpha else ())
    pixels, info, notices = read(path)
    assert (info.is_grey, info.has_alpha, info.icc, notices) == (True, has_alpha, None, ())
    assert np.abs(pixels[..., 0].astype(int) - values).max() <= (0 if value_range == "full" else 1)
    assert (pixels[:, 0, 0].max(), pixels[:, -1, 0].min()) == (0, 255)
    by_libavif = np.asarray(Image.open(path).convert("L")).astype(int)
    assert np.abs(pixels[..., 0] - by_libavif).max() <= 1


@pytest.mark.parametrize("is_full", [True, False])
@pytest.mark.parametrize("mode", ["L", "L;16"])
def test_monochrome_heic_is_grey(mode: str, is_full: bool, tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    values = codes(8 if mode == "L" else 16).astype(np.uint8 if mode == "L" else np.uint16)
    pillow_heif.encode(mode, (WIDTH, HEIGHT), values.tobytes(), tmp_path / "a.heic", quality=-1)
    file = (tmp_path / "a.heic").read_bytes()
    at = file.index(b"colrnclx") + 14
    (tmp_path / "a.heic").write_bytes(file[:at] + bytes((is_full << 7,)) + file[at + 1 :])
    pixels, info, _ = read(tmp_path / "a.heic")
    assert info.channels == 1
    most = 255 if mode == "L" else 1023
    stored = codes(8) if mode == "L" else codes(16) >> 6
    low, high = (0, most) if is_full else ((16, 235) if mode == "L" else (64, 940))
    top = 255 if mode == "L" else 65535
    expected = np.rint(np.clip((stored - low) / (high - low), 0, 1) * top)
    assert np.abs(pixels[..., 0] - expected).max() <= (0 if mode == "L" else 65)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_limited_range_in_colour_keeps_black_and_white(subsampling: str, tmp_path: Path) -> None:
    values = np.repeat(codes(8)[:, :, None], 3, 2).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.avif", quality=100, subsampling=subsampling, range="limited")
    pixels, _, _ = read(tmp_path / "a.avif")
    assert (pixels[:, 0].max(), pixels[:, -1].min()) == (0, 255)
    assert np.abs(pixels.astype(int) - np.asarray(Image.open(tmp_path / "a.avif"))).max() <= 2


def test_one_channel_in_pixi_is_grey_whatever_the_coding(tmp_path: Path) -> None:
    values = codes(8).astype(np.uint8)
    image = av1(np.repeat(values[:, :, None], 3, 2), "4:4:4")
    pixels, info, _ = read(write(tmp_path / "a.avif", [part(image, bits=(8,))]))
    assert info.channels == 1
    assert np.abs(pixels[..., 0].astype(int) - values).max() <= 1


def test_display_p3_in_nclx_is_carried_as_a_profile(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avif", [part(av1(ramps()), nclx(12, 13))])
    pixels, info, notices = read(path)
    assert notices == ()
    assert info.icc is not None and "Display P3".encode("utf-16-be") in info.icc
    assert np.abs(pixels.astype(int) - np.asarray(Image.open(path))).max() <= 1


@pytest.mark.parametrize("colours", [(), (nclx(1, 13),), (nclx(2, 2),), (nclx(1, 1),), (nclx(1, 6),)])
def test_srgb_and_what_nobody_specified_need_no_profile(colours: tuple[bytes, ...], tmp_path: Path) -> None:
    _, info, notices = read(write(tmp_path / "a.avif", [part(av1(ramps()), *colours)]))
    assert (info.icc, notices) == (None, ())


@pytest.mark.parametrize("form", [b"prof", b"rICC"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_profile_counts_before_nclx(form: bytes, is_first: bool, tmp_path: Path) -> None:
    icc = rgb_profile(P3_PRIMARIES, 2.2)
    colours = [box(b"colr", form + icc), nclx(9, 16)]
    path = write(tmp_path / "a.avif", [part(av1(ramps()), *(colours if is_first else colours[::-1]))])
    _, info, notices = read(path)
    assert (info.icc, notices) == (icc, ())


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_in_nclx_is_converted_and_named(transfer: int, name: str, tmp_path: Path) -> None:
    grey = np.repeat(codes(8)[:, :, None], 3, 2).astype(np.uint8)
    pixels, info, notices = read(write(tmp_path / "a.avif", [part(av1(grey), nclx(9, transfer))]))
    assert notices == (f"HDR ({name}, BT.2020) was converted to sRGB; what is brighter than white was clipped",)
    white = {16: 0.5807, 18: 0.75}[transfer]  # ITU-R BT.2408, table 1
    assert (pixels[:, codes(8)[0] >= white * 255 + 1] == 255).all()
    assert (pixels[:, codes(8)[0] <= white * 255 - 8] < 254).all()
    assert info.icc is not None


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_in_grey_stays_grey(transfer: int, tmp_path: Path) -> None:
    image = part(av1(codes(8).astype(np.uint8), "4:0:0"), nclx(9, transfer), bits=(8,))
    pixels, info, notices = read(write(tmp_path / "a.avif", [image]))
    assert (info.channels, info.icc) == (1, None)
    assert notices[0].startswith("HDR grey was converted")
    assert (pixels[:, 50:] == 255).all()


def test_a_grey_curve_in_nclx_is_carried_as_a_grey_profile(tmp_path: Path) -> None:
    image = av1(codes(8).astype(np.uint8), "4:0:0")
    _, info, notices = read(write(tmp_path / "a.avif", [part(image, nclx(12, 4), bits=(8,))]))
    assert info.icc is not None and info.icc[16:20] == b"GRAY"
    assert notices == ()
    _, info, _ = read(write(tmp_path / "b.avif", [part(image, box(b"colr", b"prof" + grey_profile(1.8)), bits=(8,))]))
    assert info.icc == grey_profile(1.8)


def test_an_unknown_description_is_named(tmp_path: Path) -> None:
    _, info, notices = read(write(tmp_path / "a.avif", [part(av1(ramps()), nclx(99, 13))]))
    assert info.icc is None
    assert "primaries 99, transfer 13" in notices[0]


def test_metadata_come_from_the_items_and_their_orientation_does_not_turn(tmp_path: Path) -> None:
    exif = Part(b"Exif", b"\0\0\0\6Exif\0\0" + exif_block(orientation=6))
    xmp = Part(b"mime", XMP, content_type=b"application/rdf+xml")
    about = (Reference(b"cdsc", 1, (0,)), Reference(b"cdsc", 2, (0,)))
    path = write(tmp_path / "a.avif", [part(av1(ramps())), exif, xmp], references=about)
    pixels, info, notices = read(path)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert info.exif == exif_block(orientation=1)
    assert info.xmp is not None and b'tiff:Orientation="1"' in info.xmp
    assert info.pixels_per_mm == pytest.approx((300 / 25.4, 300 / 25.4))
    assert notices == ()


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 49), (33, 17)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("crop", [None, (0, 0, 31, 16), (1, 1, 16, 15), (2, 1, 31, 13)])
def test_images_are_cropped_turned_and_mirrored(
    width: int, height: int, subsampling: str, crop: tuple[int, int, int, int] | None, tmp_path: Path
) -> None:
    image = av1(ramps(height, width), subsampling)
    expected, _, _ = read(write(tmp_path / "a.avif", [part(image, size=(width, height))]))
    cut: tuple[bytes, ...] = ()
    if crop is not None:
        left, top, columns, rows = crop
        across, down = (2 * left + columns - width, 2), (2 * top + rows - height, 2)
        cut = (clap((columns, 1), (rows, 1), across, down),)
        expected = expected[top : top + rows, left : left + columns]
    # ISO/IEC 23008-12, 6.5.10: anticlockwise, by a quarter; 6.5.12: axis 0 swaps top and bottom.
    turns: dict[tuple[bytes, ...], NDArray[Any]] = {(): expected}
    turns |= {(box(b"irot", bytes((n,))),): np.rot90(expected, n) for n in (1, 2, 3)}
    turns |= {(box(b"imir", b"\0"),): expected[::-1], (box(b"imir", b"\1"),): expected[:, ::-1]}
    turns[(box(b"irot", b"\1"), box(b"imir", b"\1"))] = np.rot90(expected)[:, ::-1]
    for properties, wanted in turns.items():
        path = write(tmp_path / "b.avif", [part(image, *cut, *properties, size=(width, height))])
        np.testing.assert_array_equal(read(path)[0], wanted)


def test_alpha_is_turned_with_the_colours(tmp_path: Path) -> None:
    turn = box(b"irot", b"\1")
    alpha = part(av1(codes(8).astype(np.uint8), "4:0:0"), alpha_of(), turn, bits=(8,))
    pixels, _, _ = read(write(tmp_path / "a.avif", [part(av1(ramps()), turn), alpha], references=ALPHA))
    np.testing.assert_array_equal(pixels[..., 3], np.rot90(codes(8)))
    assert np.abs(pixels[..., :3].astype(int) - np.rot90(ramps())).max() <= 3


@pytest.mark.parametrize("turn", [box(b"irot", b"\1"), box(b"irot", b"\2"), box(b"imir", b"\0"), box(b"imir", b"\1")])
def test_heic_is_turned_as_pillow_heif_turns_it(turn: bytes, tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.fromarray(ramps(64, 64))).save(tmp_path / "a.heic", quality=-1, chroma=444)
    config, data = coded((tmp_path / "a.heic").read_bytes())
    cut = clap((40, 1), (20, 1), (2, 1), (-2, 1))
    image = Part(b"hvc1", data, (ispe(64, 64), pixi(8, 8, 8), config, cut, turn))
    path = write(tmp_path / "b.heic", [image], brand=b"heic")
    np.testing.assert_array_equal(read(path)[0], np.asarray(pillow_heif.open_heif(path)[0]))


def test_a_grid_of_a_heic_file_is_one_page(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = pillow_heif.from_pillow(Image.fromarray(ramps(96, 160)))
    try:
        image.save(tmp_path / "a.heic", quality=-1, chroma=444, tile_size=64)
    except TypeError:
        pytest.skip("this pillow-heif writes no grids")
    pixels, info, _ = read(tmp_path / "a.heic")
    assert (info.width_px, info.height_px) == (160, 96)
    np.testing.assert_array_equal(pixels, np.asarray(pillow_heif.open_heif(tmp_path / "a.heic")[0]))
    with pytest.raises(InputError, match="only page 0"):
        open_image(tmp_path / "a.heic", page=1)


def test_an_image_that_is_another_one_is_read(tmp_path: Path) -> None:
    same = Part(b"iden", b"", (ispe(WIDTH, HEIGHT), pixi(8, 8, 8), box(b"irot", b"\2")))
    path = write(tmp_path / "a.avif", [part(av1(ramps())), same], primary=1, references=(Reference(b"dimg", 1, (0,)),))
    assert np.abs(read(path)[0].astype(int) - np.rot90(ramps(), 2)).max() <= 3


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    first, second = (Image.fromarray(flat(c)) for c in (RED, BLUE))
    first.save(tmp_path / "a.avif", save_all=True, append_images=[second], quality=90)
    assert colour_of(tmp_path / "a.avif") == RED


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (b"jpeg", "JPEG"),
        (b"j2k1", "JPEG 2000"),
        (b"vvc1", "VVC"),
        (b"unci", "uncompressed"),
        (b"avc1", "AVC"),
        (b"zzzz", "zzzz"),
    ],
)
@pytest.mark.parametrize("brand", [b"avif", b"heic"])
def test_codings_that_are_not_read_are_named(kind: bytes, name: str, brand: bytes, tmp_path: Path) -> None:
    if brand == b"heic":
        pytest.importorskip("pillow_heif")
    image = Part(kind, b"coded", (ispe(WIDTH, HEIGHT), pixi(8, 8, 8)))
    path = write(tmp_path / "a.heif", [image], brand=brand)
    with pytest.raises(InputError, match=f"coded as .*{name}.*not read") as caught:
        open_image(path)
    assert "damaged" not in str(caught.value)


def test_hevc_and_av1_are_read_whatever_the_brand(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    square = ramps(64, 64)
    pillow_heif.from_pillow(Image.fromarray(square)).save(tmp_path / "a.heic", quality=-1, chroma=444)
    hevc = coded((tmp_path / "a.heic").read_bytes())
    image = Part(b"hvc1", hevc[1], (ispe(64, 64), pixi(8, 8, 8), hevc[0]))
    for path in (
        write(tmp_path / "hevc.avif", [image]),
        write(tmp_path / "av1.heic", [part(av1(square), size=(64, 64))], brand=b"heic"),
    ):
        assert np.abs(read(path)[0].astype(int) - square).max() <= 3


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_no_cut_of_a_file_makes_up_rows(suffix: str, tmp_path: Path) -> None:
    if suffix == "heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.from_pillow(Image.fromarray(np.dstack([ramps(), codes(8)]).astype(np.uint8))).save(
            tmp_path / "a.heic", quality=50
        )
    else:
        image = Image.fromarray(np.dstack([ramps(), codes(8)]).astype(np.uint8))
        image.save(tmp_path / "a.avif", quality=50)
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for end in range(40, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError):
            read(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="truncated"):
        read(path)


def test_damaged_boxes_end_as_input_errors(tmp_path: Path) -> None:
    alpha = part(av1(codes(8).astype(np.uint8), "4:0:0"), alpha_of(), bits=(8,))
    exif = Part(b"Exif", b"\0\0\0\0" + exif_block())
    turned = part(av1(ramps()), nclx(9, 16), clap((31, 1), (17, 1), (1, 2), (1, 2)), box(b"irot", b"\1"))
    whole = heif([turned, alpha, exif], Layout(references=(*PREMULTIPLIED, Reference(b"cdsc", 2, (0,)))))
    meta = struct.unpack(">I", whole[:4])[0], whole.index(b"mdat")
    chance = random.Random(0)
    path = tmp_path / "a.avif"
    for _ in range(200):
        file = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            file[chance.randrange(*meta)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        path.write_bytes(file)
        try:
            read(path, max_pixels=100_000)
        except InputError:
            continue


def test_counts_without_bytes_do_not_take_forever(tmp_path: Path) -> None:
    places = b"".join(struct.pack(">HHH", item, 0, 65535) for item in range(60_000))
    iloc = box(b"iloc", b"\0\0\0\0", b"\0\0", struct.pack(">H", 60_000), places)
    meta = box(b"meta", b"\0\0\0\0", iloc)
    (tmp_path / "a.avif").write_bytes(box(b"ftyp", b"avif\0\0\0\0avif") + meta)
    with pytest.raises(InputError, match="pieces of data"):
        open_image(tmp_path / "a.avif")


def test_an_image_made_of_itself_is_refused(tmp_path: Path) -> None:
    circle = Part(b"grid", grid(1, 1, WIDTH, HEIGHT), (ispe(WIDTH, HEIGHT),))
    path = write(tmp_path / "a.avif", [circle], references=(Reference(b"dimg", 0, (0,)),))
    with pytest.raises(InputError):
        open_image(path)


def test_large_images_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avif", [part(av1(ramps()), size=(60_000, 60_000))])
    with pytest.raises(InputError, match="60000 x 60000"):
        open_image(path)


def test_files_without_a_still_image_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(box(b"ftyp", b"avis\0\0\0\0avis") + box(b"moov", b"\0" * 8))
    with pytest.raises(InputError, match="no still image"):
        open_image(tmp_path / "a.avif")


def packed(*fields: tuple[int, int]) -> bytes:
    """Fields (value, bits), one after the other from the highest bit on."""
    text = "".join(f"{value:0{bits}b}" for value, bits in fields)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def test_colours_in_an_av1_header_are_read() -> None:
    size = ((5, 4), (5, 4), (63, 6), (47, 6))
    colours = ((1, 1), (9, 8), (16, 8), (9, 8), (0, 1))
    # AV1 specification, 5.5.1: profile, still, reduced, level; sizes; three tools; three tools; deep, monochrome.
    reduced = packed((0, 3), (1, 1), (1, 1), (4, 5), *size, (0, 3), (0, 3), (1, 1), (0, 1), *colours)
    header = b"\x12\x00" + bytes((0x0A, len(reduced))) + reduced
    assert av1_colours(header) == Av1Colours(9, 16, is_full_range=False)
    # Not reduced: no timing, no display delay, one operating point, frame IDs, inter tools with order hints.
    tools = ((0, 4), (1, 1), (0, 2), (1, 1), (1, 1), (3, 3))
    full = packed(
        (0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (9, 5), (0, 1), *size, (1, 1), (0, 7), (0, 3),
        *tools, (0, 3), (0, 1), (1, 1), *colours[:-1], (1, 1),
    )  # fmt: skip
    assert av1_colours(bytes((0x0A, len(full))) + full) == Av1Colours(9, 16, is_full_range=True)
    for end in range(len(header)):
        av1_colours(header[:end])


def test_av1_headers_of_libavif_say_what_it_was_told(tmp_path: Path) -> None:
    for value_range in ("full", "limited"):
        _, data = av1(ramps(), range=value_range)
        assert av1_colours(data) == Av1Colours(1, 13, is_full_range=value_range == "full")
