"""A file gives the same pixels through the Python API, opened with Pillow, as through the command."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from realesr.images.arrays import pixels_from_pil
from realesr.images.reader import open_image

from .image_files import ADOBE_PRIMARIES, XMP, exif_block, grey_profile, libvips_profile, photo, rgb_profile


def stored(array: Any, form: str, mode: str | None = None, **options: Any) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with more chunks behind IHDR."""
    made = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return png[:33] + b"".join(made) + png[33:]


RGB, RGBA, GREY = photo(12, 17), photo(12, 17, 4), photo(12, 17, 1)[:, :, 0]
DEEP = GREY.astype(np.uint16) * 251
GREY_PALETTE = Image.fromarray(GREY // 16).convert("P")
GREY_PALETTE.putpalette(np.arange(0, 256, 16, dtype=np.uint8).repeat(3).tobytes())
LINEAR = rgb_profile(ADOBE_PRIMARIES, 1.0)
LAB = ImageCms.profileToProfile(
    Image.fromarray(RGB), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
)

FILES: dict[str, Callable[[], bytes]] = {
    "rgb.png": lambda: stored(RGB, "PNG"),
    "rgba.png": lambda: stored(RGBA, "PNG"),
    "grey.png": lambda: stored(GREY, "PNG"),
    "grey_alpha.png": lambda: stored(RGBA, "PNG", "LA"),
    "bilevel.png": lambda: stored(GREY, "PNG", "1"),
    "grey16.png": lambda: stored(DEEP, "PNG"),
    "hole.png": lambda: stored(RGB, "PNG", transparency=tuple(int(v) for v in RGB[3, 3])),
    "grey_hole.png": lambda: stored(GREY, "PNG", transparency=int(GREY[3, 3])),
    "grey16_hole.png": lambda: stored(DEEP, "PNG", transparency=int(DEEP[3, 3])),
    "bilevel_hole.png": lambda: stored(GREY, "PNG", "1", transparency=255),
    "palette.png": lambda: stored(Image.fromarray(RGB).quantize(20), "PNG"),
    "palette_hole.png": lambda: stored(Image.fromarray(RGB).quantize(20), "PNG", transparency=3),
    "palette_alpha.png": lambda: stored(
        Image.fromarray(RGB).quantize(20), "PNG", transparency=bytes(range(0, 200, 10))
    ),
    "grey_palette.png": lambda: stored(GREY_PALETTE, "PNG"),
    "grey_palette_hole.png": lambda: stored(GREY_PALETTE, "PNG", transparency=4),
    "grey_palette_adobe.png": lambda: stored(GREY_PALETTE, "PNG", icc_profile=rgb_profile(ADOBE_PRIMARIES, 2.2)),
    "gamma.png": lambda: with_chunks(stored(RGB, "PNG"), (b"gAMA", struct.pack(">I", 100_000))),
    "grey_gamma.png": lambda: with_chunks(stored(GREY, "PNG"), (b"gAMA", struct.pack(">I", 55_556))),
    "turned.png": lambda: stored(RGB, "PNG", exif=exif_block(orientation=7)),
    "adobe.png": lambda: stored(RGB, "PNG", icc_profile=rgb_profile(ADOBE_PRIMARIES, 2.2)),
    "linear.png": lambda: stored(RGBA, "PNG", icc_profile=LINEAR),
    "rgb_profile_of_grey.png": lambda: stored(GREY, "PNG", icc_profile=rgb_profile(ADOBE_PRIMARIES, 2.2)),
    "grey_profile.png": lambda: stored(GREY, "PNG", icc_profile=grey_profile(2.2)),
    "damaged_profile.png": lambda: stored(RGB, "PNG", icc_profile=LINEAR[:300]),
    "rgb.tif": lambda: stored(RGB, "TIFF"),
    "turned.tif": lambda: stored(RGB, "TIFF", tiffinfo={274: 6}),
    "grey16.tif": lambda: stored(DEEP, "TIFF"),
    "cmyk.tif": lambda: stored(RGB, "TIFF", "CMYK"),
    "cmyk_profile.tif": lambda: stored(RGB, "TIFF", "CMYK", icc_profile=libvips_profile("cmyk")),
    "lab.tif": lambda: stored(LAB, "TIFF"),
    "rgb.gif": lambda: stored(Image.fromarray(RGB).quantize(20), "GIF"),
    "grey.gif": lambda: stored(GREY, "GIF"),
    "hole.gif": lambda: stored(Image.fromarray(RGB).quantize(20), "GIF", transparency=3),
    "rgb.webp": lambda: stored(RGB, "WEBP", lossless=True),
    "turned.webp": lambda: stored(RGBA, "WEBP", lossless=True, exact=True, exif=exif_block(orientation=5)),
    "rgb.bmp": lambda: stored(RGB, "BMP"),
    "palette.bmp": lambda: stored(Image.fromarray(RGB).quantize(20), "BMP"),
    "grey.bmp": lambda: stored(GREY, "BMP"),
    "rgb.ppm": lambda: stored(RGB, "PPM"),
    "deep.pgm": lambda: stored(DEEP, "PPM"),
    "bilevel.pbm": lambda: stored(GREY, "PPM", "1"),
    "rgb.jpg": lambda: stored(RGB, "JPEG", quality=90),
    "grey.jpg": lambda: stored(GREY, "JPEG", quality=90, exif=b"Exif\0\0" + exif_block(orientation=8)),
    "turned_by_xmp.jpg": lambda: stored(RGB, "JPEG", quality=90, xmp=XMP),
    "cmyk.jpg": lambda: stored(RGB, "JPEG", "CMYK", quality=95),
}


@pytest.mark.parametrize("name", FILES)
def test_pillow_and_the_command_give_the_same_pixels(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    with open_image(path) as reader:
        info = reader.info
        rows = reader.read_rows(info.height_px)
    with Image.open(path) as image:
        array, facts = pixels_from_pil(image)
    assert array.dtype == rows.dtype
    difference = np.abs(array.reshape(rows.shape).astype(int) - rows)
    if name == "hole.gif":  # libvips leaves no colour where nothing is seen
        difference *= rows[:, :, 3:] > 0
    assert difference.max() <= (3 if name.endswith("jpg") else 1)
    for fact in ("bits", "is_grey", "has_alpha", "icc", "width_px", "height_px"):
        assert getattr(facts, fact) == getattr(info, fact)
