"""The resolution that a print asks for stands in the file of every format, and nothing in the file contradicts it."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from realesr.api import Upscaler
from realesr.images.info import OutputFormat
from realesr.images.metadata.xmp import xmp_resized
from realesr.images.reader import open_image
from realesr.options import FileOptions, ImageOptions
from realesr.target_size import TargetSize

from .image_files import exif_block, photo

FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "tiff", "webp", "avif")
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 tiff:XResolution="72/1" tiff:YResolution="72/1" xmp:Rating="4"><tiff:ResolutionUnit>2</tiff:ResolutionUnit>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler(engine="nearest")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("with_metadata", "strip"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("dpi", [300, 254.5])
def test_the_dpi_of_a_print_stand_in_every_format(
    upscaler: Upscaler, fmt: OutputFormat, with_metadata: bool, strip: bool, dpi: float, tmp_path: Path
) -> None:
    exif = b"Exif\0\0" + exif_block() if with_metadata else b""
    Image.fromarray(photo(40, 60)).save(tmp_path / "a.jpg", dpi=(72, 72), exif=exif, xmp=XMP if with_metadata else b"")
    image = ImageOptions(size=TargetSize.from_print(f"15x9mm@{dpi}"))
    target = tmp_path / f"b.{fmt}"
    result = upscaler.upscale_file(tmp_path / "a.jpg", target, image=image, file=FileOptions(strip=strip))
    assert result.output_px == ((159, 106) if dpi == 300 else (135, 90))
    with open_image(target) as reader:
        assert reader.info.pixels_per_mm == pytest.approx((dpi / 25.4, dpi / 25.4), rel=1e-3)
        assert b"Resolution" not in (reader.info.xmp or b"")
        assert (b"Rating" in (reader.info.xmp or b"")) == (with_metadata and not strip)
    with Image.open(target) as found:
        exif_found = found.getexif()
        if ExifTags.Base.XResolution in exif_found:
            assert float(exif_found[ExifTags.Base.XResolution]) == pytest.approx(dpi, rel=1e-3)
        if fmt in ("png", "jpeg", "tiff"):
            assert found.info["dpi"] == pytest.approx((dpi, dpi), rel=1e-3)
        assert (ExifTags.Base.Make in exif_found) == (with_metadata and not strip)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_finds_one_resolution_in_each_file(upscaler: Upscaler, tmp_path: Path) -> None:
    Image.fromarray(photo(40, 60)).save(tmp_path / "a.jpg", dpi=(72, 72), exif=b"Exif\0\0" + exif_block(), xmp=XMP)
    for fmt in FORMATS:
        image = ImageOptions(size=TargetSize.from_print("20x10mm@254"))
        upscaler.upscale_file(tmp_path / "a.jpg", tmp_path / f"b.{fmt}", image=image)
        command = ["exiftool", "-a", "-s3", "-XResolution", "-YResolution", str(tmp_path / f"b.{fmt}")]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
        assert {float(value) for value in found} == {254.0}, fmt


def test_a_pil_image_has_the_resolution_too(upscaler: Upscaler) -> None:
    image = Image.fromarray(photo(40, 60))
    image.info.update(dpi=(72, 72), exif=b"Exif\0\0" + exif_block(), xmp=XMP)
    large = upscaler.upscale(image, size=TargetSize.from_print("20x10mm@254"))
    assert large.size == (150, 100)
    assert large.info["dpi"] == pytest.approx((254, 254))
    exif = Image.Exif()
    exif.load(large.info["exif"])
    assert float(exif[ExifTags.Base.XResolution]) == pytest.approx(254)
    assert b"Resolution" not in large.info["xmp"]


def test_other_sizes_keep_the_resolution_of_the_input(upscaler: Upscaler, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png", dpi=(100, 100))
    image = ImageOptions(size=TargetSize(long_side_px=12))
    upscaler.upscale_file(tmp_path / "a.png", tmp_path / "b.png", image=image)
    with Image.open(tmp_path / "b.png") as found:
        assert found.info["dpi"] == pytest.approx((100, 100), rel=1e-3)


def test_the_resolution_in_xmp_stays_where_it_is_true() -> None:
    assert xmp_resized(XMP, (6, 4), (12, 8))[0] == XMP
    without, notices = xmp_resized(XMP, (6, 4), (12, 8), has_new_resolution=True)
    assert without is not None
    assert b"Resolution" not in without
    assert b'xmp:Rating="4"' in without
    assert notices == ()
    in_utf16 = XMP.decode().encode("utf-16-le")
    assert xmp_resized(in_utf16, (6, 4), (12, 8), has_new_resolution=True)[0] is None
