"""EXIF in whole files of every format, read back by Pillow, tifffile and libvips; structure read byte by byte."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import ExifTags, Image

from realesr.images.info import ImageInfo, OutputFormat
from realesr.images.metadata.chunks import MOST_EXIF_BYTES_IN_JPEG, MOST_XMP_BYTES_IN_JPEG
from realesr.images.metadata.output_metadata import enlarged_info
from realesr.images.output_format import check_output
from realesr.images.writer import open_writer

from .image_files import ADOBE_PRIMARIES, MAKER_NOTE, XMP, exif_block, photo, rgb_profile

FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "tiff", "webp", "avif")
ICC = rgb_profile(ADOBE_PRIMARIES, 2.2)


def write(path: Path, fmt: OutputFormat, pixels: NDArray[np.uint8], **facts: object) -> None:
    height, width, channels = pixels.shape
    info = ImageInfo(
        width_px=width, height_px=height, bits=8, is_grey=channels < 3, has_alpha=channels in (2, 4), format="png"
    )
    with open_writer(path, replace(info, **facts), fmt) as writer:  # type: ignore[arg-type]
        writer.write_rows(pixels)


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("icc", [None, ICC])
@pytest.mark.parametrize("xmp", [None, XMP])
@pytest.mark.parametrize("odd", [False, True])
def test_exif_is_added_as_it_is_and_the_pixels_stay(
    fmt: OutputFormat, channels: int, icc: bytes | None, xmp: bytes | None, odd: bool, tmp_path: Path
) -> None:
    if (fmt == "jpeg" and channels == 4) or (channels == 1 and icc):
        pytest.skip("no such file")
    pixels, block = photo(33, 50, channels), exif_block(">") + b"!" * odd
    write(tmp_path / "without", fmt, pixels, icc=icc, xmp=xmp)
    write(tmp_path / "with", fmt, pixels, icc=icc, xmp=xmp, exif=block)
    np.testing.assert_array_equal(read(tmp_path / "with"), read(tmp_path / "without"))
    by_vips = pyvips.Image.new_from_file(str(tmp_path / "with"), access="sequential")
    np.testing.assert_array_equal(
        by_vips.numpy(), pyvips.Image.new_from_file(str(tmp_path / "without"), access="sequential").numpy()
    )
    with Image.open(tmp_path / "with") as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == "Maker Co"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] == MAKER_NOTE
        assert image.info.get("icc_profile") == icc
        assert image.info.get("xmp") == xmp
        if fmt != "tiff":
            assert image.info["exif"].removeprefix(b"Exif\0\0") == block
    if fmt != "tiff":
        stored = bytes(by_vips.get("exif-data"))
        assert stored.removeprefix(b"Exif\0\0") == block


def test_exif_of_png_comes_before_the_pixels(tmp_path: Path) -> None:
    write(tmp_path / "a.png", "png", photo(9, 8), exif=exif_block(), xmp=XMP)
    data, at, kinds = (tmp_path / "a.png").read_bytes(), 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        if kind == b"eXIf":
            assert body == exif_block()
        kinds.append(kind)
        at += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds.index(b"eXIf") < kinds.index(b"IDAT")
    assert kinds.count(b"eXIf") == 1


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("icc", [None, ICC])
@pytest.mark.parametrize("xmp", [None, XMP, XMP + b" "])
def test_webp_has_the_chunks_in_the_specified_order(
    channels: int, icc: bytes | None, xmp: bytes | None, tmp_path: Path
) -> None:
    write(tmp_path / "a.webp", "webp", photo(9, 8, channels), exif=exif_block() + b"!", xmp=xmp, icc=icc)
    data = (tmp_path / "a.webp").read_bytes()
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    at, chunks = 12, {}
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks[data[at : at + 4]] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    assert at == len(data)
    order = [b"VP8X", b"ICCP", b"ALPH", b"VP8 ", b"EXIF", b"XMP "]
    assert list(chunks) == [kind for kind in order if kind in chunks]
    flags, width, height = chunks[b"VP8X"][0], chunks[b"VP8X"][4:7], chunks[b"VP8X"][7:10]
    assert (int.from_bytes(width, "little"), int.from_bytes(height, "little")) == (7, 8)
    assert flags == 0x20 * (icc is not None) + 0x10 * (channels == 4) + 0x08 + 0x04 * (xmp is not None)
    assert chunks.get(b"XMP ") == xmp


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_lossless_webp_in_the_simple_format_becomes_an_extended_one(mode: str, tmp_path: Path) -> None:
    from realesr.images.metadata.exif_in_webp import add_exif_to_webp

    pixels = photo(9, 8, len(mode))
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exact=True)
    assert (tmp_path / "a.webp").read_bytes()[12:16] == b"VP8L"
    add_exif_to_webp(tmp_path / "a.webp", exif_block(), 8, 9)
    with Image.open(tmp_path / "a.webp") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), pixels)
        assert image.getexif()[ExifTags.Base.Make] == "Maker Co"


def test_avif_names_the_block_as_metadata_of_the_picture(tmp_path: Path) -> None:
    write(tmp_path / "a.avif", "avif", photo(33, 50, 4), exif=exif_block(), xmp=XMP, icc=ICC)
    data = (tmp_path / "a.avif").read_bytes()
    assert data.endswith(struct.pack(">I", len(exif_block()) + 12) + b"mdat\0\0\0\0" + exif_block())
    at, kinds = 0, []
    while at < len(data):
        kinds.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    assert (at, kinds) == (len(data), [b"ftyp", b"meta", b"mdat", b"mdat"])
    assert data.count(b"cdsc") == 2


def test_exif_of_jpeg_is_a_segment_right_behind_the_start(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", "jpeg", photo(9, 8), exif=exif_block(), xmp=XMP, pixels_per_mm=(300 / 25.4,) * 2)
    data = (tmp_path / "a.jpg").read_bytes()
    assert data[:12] == b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif_block()) + 8) + b"Exif\0\0"
    assert data[12 : 12 + len(exif_block())] == exif_block()


def test_xmp_that_fills_a_segment_of_jpeg_is_kept(tmp_path: Path) -> None:
    xmp = XMP.ljust(MOST_XMP_BYTES_IN_JPEG)
    write(tmp_path / "a.jpg", "jpeg", photo(9, 8), exif=exif_block(), xmp=xmp, icc=ICC)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.info["xmp"], image.info["icc_profile"]) == (xmp, ICC)


@pytest.mark.parametrize(("per_inch", "has_jfif"), [(300, True), (72, True), (0.5, False), (100_000, False)])
def test_a_resolution_without_exif_has_a_place_in_jpeg(per_inch: float, has_jfif: bool, tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", "jpeg", photo(9, 8), pixels_per_mm=(per_inch / 25.4,) * 2)
    with Image.open(tmp_path / "a.jpg") as image:
        assert ("jfif" in image.info) == has_jfif
        assert image.info["dpi"] == pytest.approx((per_inch, per_inch))


def test_a_resolution_that_exif_does_not_state_has_a_place_in_jpeg(tmp_path: Path) -> None:
    long = exif_block() + b"x" * MOST_EXIF_BYTES_IN_JPEG
    for block in (exif_block(), long):  # the first states 300
        write(tmp_path / "a.jpg", "jpeg", photo(9, 8), exif=block, pixels_per_mm=(200 / 25.4,) * 2)
        with Image.open(tmp_path / "a.jpg") as image:
            assert image.info["dpi"] == (200, 200)


@pytest.mark.parametrize("extra", [0, 1])
def test_jpeg_takes_a_block_of_one_segment_and_says_so_where_it_is_longer(extra: int, tmp_path: Path) -> None:
    block = exif_block()
    block += b"x" * (MOST_EXIF_BYTES_IN_JPEG + extra - len(block))
    write(tmp_path / "a.jpg", "jpeg", photo(9, 8), exif=block)
    info = ImageInfo(width_px=8, height_px=9, bits=8, is_grey=False, has_alpha=False, format="png", exif=block)
    assert bool(check_output(tmp_path / "b.jpg", info, "jpeg")) == bool(extra)
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(np.asarray(image).shape, (9, 8, 3))
        assert (ExifTags.Base.Make in image.getexif()) == (not extra)


def test_a_block_whose_thumbnail_is_too_long_for_jpeg_is_repacked(tmp_path: Path) -> None:
    """The thumbnail lies in the middle, so that taking it out does not make the block shorter."""
    small = exif_block().index(b"\xff\xd8\xff")
    second = exif_block().index(struct.pack("<HHII", 0x0202, 4, 1, 0)[:8])
    assert small < second
    block = bytearray(exif_block())
    first_at = int.from_bytes(block[4:8], "little")
    directory = bytes(block[first_at:])
    moved = 70_000
    block[first_at:first_at] = b"x" * moved
    for entry in range(9):  # values of the first directory move with it
        at = first_at + moved + 2 + 12 * entry
        kind, count, place = struct.unpack("<HII", block[at + 2 : at + 12])
        if {2: 1, 5: 8}.get(kind, 1) * count > 4 and place >= first_at:
            block[at + 8 : at + 12] = struct.pack("<I", place + moved)
    block[4:8] = struct.pack("<I", first_at + moved)
    assert directory
    info = ImageInfo(width_px=60, height_px=40, bits=8, is_grey=False, has_alpha=False, format="png", exif=bytes(block))
    changed, notices = enlarged_info(info, 120, 80, "jpeg")
    assert not notices
    assert changed.exif is not None
    assert len(changed.exif) < 2000
    assert len(enlarged_info(info, 120, 80, "png")[0].exif or b"") > moved
    write(tmp_path / "a.jpg", "jpeg", photo(80, 120), exif=changed.exif)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif()[ExifTags.Base.Make] == "Maker Co"
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] == MAKER_NOTE


def test_exif_is_inserted_into_large_files_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realesr.images.metadata.inserting._PIECE_BYTES", 97)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for fmt in ("webp", "avif"):
        write(tmp_path / "without", fmt, noise)
        write(tmp_path / "with", fmt, noise, exif=exif_block())
        np.testing.assert_array_equal(read(tmp_path / "with"), read(tmp_path / "without"))


def test_tifffile_reads_the_fields_and_the_pixels(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile reads the file independently")
    write(tmp_path / "a.tif", "tiff", photo(9, 8), exif=exif_block(">"))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.pages[0].asarray(), photo(9, 8))
        tags = file.pages[0].tags
        assert tags["Make"].value == "Maker Co"
        assert tags["ExifTag"].value["LensModel"] == "Some Lens 50mm"
        assert tags["GPSTag"].value["GPSLatitudeRef"] == "N"
