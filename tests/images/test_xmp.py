"""EXIF, XMP and resolution on the way from file to file, read back by Pillow."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from realesr.images.info import ImageInfo, OutputFormat
from realesr.images.metadata.exif import append_to_tiff, exif_from_tiff, upright
from realesr.images.metadata.output_metadata import enlarged_info, stripped_info
from realesr.images.metadata.xmp import xmp_resized, xmp_upright
from realesr.images.reader import open_image
from realesr.images.writer import open_writer

from .image_files import ADOBE_PRIMARIES, MAKER_NOTE, SRGB_PRIMARIES, XMP, exif_block, grey_profile, photo, rgb_profile

FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "tiff", "webp", "avif")


def enlarged(source: Path, target: Path, fmt: OutputFormat, *, strip: bool = False, **options: Any) -> ImageInfo:
    """Read `source`, double it, write it."""
    with open_image(source) as reader:
        rows = reader.read_rows(reader.info.height_px).repeat(2, axis=0).repeat(2, axis=1)
        known = stripped_info(reader.info) if strip else reader.info
        info, _ = enlarged_info(known, reader.info.width_px * 2, reader.info.height_px * 2, fmt)
    with open_writer(target, info, fmt, **options) as writer:
        writer.write_rows(rows)
    return info


def exif_of(path: Path) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any], dict[int, Any]]:
    """First directory, Exif, GPS and thumbnail directory, by Pillow."""
    with Image.open(path) as image:
        exif = image.getexif()
        thumbnails = dict(exif.get_ifd(ExifTags.IFD.IFD1))  # first: Pillow forgets it when others were read
        return dict(exif), dict(exif.get_ifd(ExifTags.IFD.Exif)), dict(exif.get_ifd(ExifTags.IFD.GPSInfo)), thumbnails


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_exif_of_a_photo_is_kept_and_corrected(fmt: OutputFormat, order: str, tmp_path: Path) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / f"b.{fmt}"
    Image.fromarray(photo(40, 60)).save(source, exif=b"Exif\0\0" + exif_block(order, orientation=6))
    assert exif_of(source)[3], "the input must have a thumbnail for this test to say anything"

    enlarged(source, target, fmt)

    first, exif, gps, thumbnail = exif_of(target)
    assert first[ExifTags.Base.Make] == "Maker Co"
    assert first[ExifTags.Base.DateTime] == "2021:05:04 10:11:12"
    assert first.get(ExifTags.Base.Orientation, 1) == 1
    assert exif[ExifTags.Base.ExposureTime] == pytest.approx(1 / 250)
    assert exif[ExifTags.Base.LensModel] == "Some Lens 50mm"
    assert exif[ExifTags.Base.MakerNote] == MAKER_NOTE
    assert (exif[ExifTags.Base.ExifImageWidth], exif[ExifTags.Base.ExifImageHeight]) == (80, 120)
    assert [float(v) for v in gps[ExifTags.GPS.GPSLatitude]] == [47, 30, 12.34]
    assert thumbnail == {}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_changes_the_orientation_and_not_one_byte_more(orientation: int, order: str) -> None:
    assert upright(exif_block(order, orientation=orientation)) == exif_block(order, orientation=1)
    assert upright(b"Exif\0\0" + exif_block(order, orientation=orientation)) == exif_block(order)


def test_damaged_exif_never_raises() -> None:
    block = exif_block()
    for end in range(len(block)):
        upright(block[:end])
    generator = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(block)
        for place in generator.integers(0, len(block), 8):
            damaged[place] = generator.integers(256)
        upright(bytes(damaged))


def test_damaged_exif_is_dropped_with_a_notice(tmp_path: Path) -> None:
    Image.fromarray(photo(9, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    with open_image(tmp_path / "a.jpg") as reader:
        assert reader.info.exif is None
        assert reader.notices == ("the EXIF block is damaged and was dropped",)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_goes_through_tiff_and_back(order: str, tmp_path: Path) -> None:
    first, second = tmp_path / "a.jpg", tmp_path / "b.tif"
    Image.fromarray(photo(40, 60)).save(first, exif=b"Exif\0\0" + exif_block(order))
    enlarged(first, second, "tiff")
    enlarged(second, tmp_path / "c.png", "png")
    _, exif, gps, _ = exif_of(tmp_path / "c.png")
    assert exif[ExifTags.Base.MakerNote] == MAKER_NOTE
    assert exif[ExifTags.Base.ExifImageWidth] == 240
    assert gps[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_exif_of_a_bigtiff_is_written_and_read(tmp_path: Path) -> None:
    import pyvips

    path = tmp_path / "a.tif"
    pyvips.Image.new_from_array(photo(9, 8)).tiffsave(str(path), bigtiff=True)
    append_to_tiff(path, exif_block(">"))
    with Image.open(path) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "Some Lens 50mm"
        np.testing.assert_array_equal(np.asarray(image), photo(9, 8))
    block = exif_from_tiff(path, 0)
    assert block is not None
    exif = Image.Exif()
    exif.load(block)
    assert exif[ExifTags.Base.Make] == "Maker Co"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_a_tiff_that_says_nothing_gives_no_exif(tmp_path: Path) -> None:
    Image.fromarray(photo(9, 8)).save(tmp_path / "a.tif")
    assert exif_from_tiff(tmp_path / "a.tif", 0) is None


def test_xmp_is_set_upright_in_both_forms() -> None:
    assert b'tiff:Orientation="1"' in xmp_upright(XMP)
    assert xmp_upright(b"<tiff:Orientation>8</tiff:Orientation>") == b"<tiff:Orientation>1</tiff:Orientation>"
    assert xmp_upright(XMP).replace(b'Orientation="1"', b'Orientation="6"') == XMP


def test_xmp_gets_the_new_size_and_loses_its_thumbnails() -> None:
    xmp, _ = xmp_resized(XMP, (60, 40), (240, 160))
    assert xmp is not None
    assert b"tiff:ImageWidth='240'" in xmp
    assert b"<exif:PixelYDimension>160</exif:PixelYDimension><tiff:ImageLength>160</tiff:ImageLength>" in xmp
    assert b"Thumbnails" not in xmp
    assert b'xmp:Rating="4"' in xmp


@pytest.mark.parametrize("fmt", FORMATS)
def test_xmp_is_kept_by_every_format(fmt: OutputFormat, tmp_path: Path) -> None:
    Image.fromarray(photo(40, 60)).save(tmp_path / "a.jpg", xmp=XMP)
    enlarged(tmp_path / "a.jpg", tmp_path / f"b.{fmt}", fmt)
    with open_image(tmp_path / f"b.{fmt}") as reader:
        xmp = xmp_resized(XMP, (60, 40), (120, 80))[0]
        assert reader.info.xmp == (xmp_upright(xmp or b"") if fmt == "avif" else xmp)  # in AVIF it has no effect
    with Image.open(tmp_path / f"b.{fmt}") as image:
        assert b'xmp:Rating="4"' in image.info["xmp"]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("with_exif", [True, False])
def test_resolution_is_kept_by_every_format(fmt: OutputFormat, with_exif: bool, tmp_path: Path) -> None:
    exif = b"Exif\0\0" + exif_block() if with_exif else b""
    Image.fromarray(photo(40, 60)).save(tmp_path / "a.jpg", dpi=(300, 300), exif=exif)
    enlarged(tmp_path / "a.jpg", tmp_path / f"b.{fmt}", fmt)
    with open_image(tmp_path / f"b.{fmt}") as reader:
        assert reader.info.pixels_per_mm == pytest.approx((300 / 25.4, 300 / 25.4), rel=1e-3)
    if fmt in ("png", "jpeg", "tiff"):
        with Image.open(tmp_path / f"b.{fmt}") as image:
            assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)


def test_resolution_turns_with_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(photo(4, 6)).save(tmp_path / "a.tif", dpi=(100, 200), exif=exif)
    with open_image(tmp_path / "a.tif") as reader:
        assert (reader.info.width_px, reader.info.height_px) == (4, 6)
        assert reader.info.pixels_per_mm == pytest.approx((200 / 25.4, 100 / 25.4), rel=1e-3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
def test_no_resolution_is_made_up(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(photo(4, 6)).save(tmp_path / f"a.{suffix}")
    with open_image(tmp_path / f"a.{suffix}") as reader:
        made_up_by_pillow = suffix == "bmp"
        assert (reader.info.pixels_per_mm is not None) == made_up_by_pillow


@pytest.mark.parametrize("fmt", FORMATS)
def test_nothing_is_added_to_an_image_that_says_nothing(fmt: OutputFormat, tmp_path: Path) -> None:
    Image.fromarray(photo(4, 6)).save(tmp_path / "a.png")
    enlarged(tmp_path / "a.png", tmp_path / f"b.{fmt}", fmt)
    with Image.open(tmp_path / f"b.{fmt}") as image:
        assert not {"exif", "icc_profile", "xmp"} & {key for key, value in image.info.items() if value}


@pytest.mark.parametrize("fmt", FORMATS)
def test_strip_leaves_nothing_but_a_profile_that_colours_need(fmt: OutputFormat, tmp_path: Path) -> None:
    adobe, srgb = rgb_profile(ADOBE_PRIMARIES, 2.2), rgb_profile(SRGB_PRIMARIES, 2.2)
    srgb_like = Image.open(io.BytesIO(_jpeg_with_pillows_srgb())).info["icc_profile"]
    for icc, kept in ((adobe, True), (srgb, True), (srgb_like, False)):
        Image.fromarray(photo(40, 60)).save(
            tmp_path / "a.jpg", exif=b"Exif\0\0" + exif_block(), xmp=XMP, icc_profile=icc
        )
        enlarged(tmp_path / "a.jpg", tmp_path / f"b.{fmt}", fmt, strip=True)
        with Image.open(tmp_path / f"b.{fmt}") as image:
            assert image.info.get("icc_profile") == (icc if kept else None)
            assert not image.info.get("exif")
            assert not image.info.get("xmp")
            assert not {ExifTags.Base.Make, ExifTags.IFD.Exif} & set(image.getexif())


def _jpeg_with_pillows_srgb() -> bytes:
    from PIL import ImageCms

    file = io.BytesIO()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (1, 1)).save(file, "JPEG", icc_profile=icc)
    return file.getvalue()


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_profile_is_kept_by_every_format(fmt: OutputFormat, tmp_path: Path) -> None:
    icc = rgb_profile(ADOBE_PRIMARIES, 2.2)
    Image.fromarray(photo(4, 6)).save(tmp_path / "a.png", icc_profile=icc)
    enlarged(tmp_path / "a.png", tmp_path / f"b.{fmt}", fmt)
    with Image.open(tmp_path / f"b.{fmt}") as image:
        assert image.info["icc_profile"] == icc


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("strip", [False, True])
def test_grey_with_a_profile_looks_the_same_in_every_format(fmt: OutputFormat, strip: bool, tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(16, axis=0)
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=grey_profile(1.8))
    enlarged(tmp_path / "a.png", tmp_path / f"b.{fmt}", fmt, strip=strip, **_best(fmt))
    with Image.open(tmp_path / f"b.{fmt}") as image:
        icc, pixels = image.info.get("icc_profile"), np.asarray(image.convert("L"))[::2, ::2]
    linear = (grey / 255) ** 1.8
    in_srgb = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    if fmt in ("webp", "avif"):
        assert np.abs(pixels - in_srgb).max() < 5
    else:
        assert icc == grey_profile(1.8)
        assert np.abs(pixels.astype(int) - grey).max() < 4


def _best(fmt: OutputFormat) -> dict[str, int]:
    return {"quality": 100} if fmt in ("jpeg", "webp", "avif") else {}


@pytest.mark.parametrize("fmt", ["tiff", "jpeg"])
def test_damaged_exif_never_spoils_a_file(fmt: OutputFormat, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    info = ImageInfo(width_px=2, height_px=2, bits=8, is_grey=False, has_alpha=False, format="jpeg")
    for _ in range(40):
        damaged = bytearray(exif_block())
        for place in generator.integers(0, len(damaged), 12):
            damaged[place] = generator.integers(256)
        with open_writer(tmp_path / "a", replace(info, exif=bytes(damaged)), fmt) as writer:
            writer.write_rows(photo(2, 2))
        with Image.open(tmp_path / "a") as image:
            assert image.size == (2, 2)
            image.load()
