"""Reading WebP: metadata from its chunks, frames and alpha, against Pillow."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.images.info import ImageInfo
from realesr.images.reader import open_image

from .image_files import ADOBE_PRIMARIES, XMP, exif_block, photo, rgb_profile

ADOBE = rgb_profile(ADOBE_PRIMARIES, 2.2)


def read(path: Path, page: int | None = None) -> tuple[NDArray[np.generic], ImageInfo, tuple[str, ...]]:
    with open_image(path, page=page) as reader:
        return reader.read_rows(reader.info.height_px), reader.info, reader.notices


@pytest.mark.parametrize("mark", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_metadata_are_read_with_and_without_the_mark_of_jpeg(mark: bytes, orientation: int, tmp_path: Path) -> None:
    pixels = photo(12, 20)
    block = exif_block(orientation=orientation)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exif=block, icc_profile=ADOBE, xmp=XMP)
    data = (tmp_path / "a.webp").read_bytes()
    at = data.index(b"EXIF")
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    chunk = b"EXIF" + struct.pack("<I", size + len(mark)) + mark + data[at + 8 : at + 8 + size]
    data = data[:at] + chunk + data[at + 8 + size :]
    (tmp_path / "a.webp").write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    found, info, notices = read(tmp_path / "a.webp")
    np.testing.assert_array_equal(found, pixels if orientation == 1 else np.rot90(pixels, -1))
    assert info.exif is not None
    assert info.exif[:2] == b"II"
    assert info.icc == ADOBE
    assert info.xmp is not None
    assert info.pixels_per_mm == pytest.approx((300 / 25.4, 300 / 25.4))
    assert notices == ()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("options", [{"lossless": True, "exact": True}, {"quality": 90}])
def test_every_form_reads_as_pillow_reads_it(mode: str, options: dict[str, Any], tmp_path: Path) -> None:
    Image.fromarray(photo(21, 33, len(mode))).save(tmp_path / "a.webp", **options)
    pixels, info, notices = read(tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as image:
        expected = np.asarray(image)
    assert (info.has_alpha, notices) == (mode == "RGBA", ())
    assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_of_an_animation_the_first_frame_is_read_with_a_notice(tmp_path: Path) -> None:
    frames = [Image.fromarray(photo(8, 9, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    pixels, _, notices = read(tmp_path / "a.webp")
    np.testing.assert_array_equal(pixels[:, :, :3], photo(8, 9))
    assert notices == ("the animation has 3 frames; only the first was read",)
    pixels, _, notices = read(tmp_path / "a.webp", page=2)
    np.testing.assert_array_equal(pixels[:, :, :3], photo(8, 9, seed=2))
    assert notices == ()


def test_metadata_that_are_too_large_are_told_and_what_lies_behind_the_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(photo(8, 9)).save(tmp_path / "a.webp", lossless=True, xmp=XMP)
    whole = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "a.webp").write_bytes(whole + b"EXIF\x08\0\0\0" + exif_block()[:8])
    _, info, notices = read(tmp_path / "a.webp")
    assert (info.exif, info.xmp, notices) == (None, XMP, ())
    monkeypatch.setattr("realesr.images.formats.webp._MOST_BYTES", len(XMP) - 1)
    _, info, notices = read(tmp_path / "a.webp")
    assert (info.xmp, notices) == (None, (f"the XMP chunk of {len(XMP)} bytes is too large and was left out",))
