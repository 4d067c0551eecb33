import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import realesr
from realesr.errors import InputError, UsageError


@pytest.fixture(scope="module")
def upscaler() -> Any:
    with realesr.Upscaler(engine="nearest", tile_px=64) as opened:
        yield opened


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
def test_arrays_keep_their_type_and_axes(upscaler: realesr.Upscaler, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).random(shape)
    array = (array * np.iinfo(dtype).max).astype(dtype) if dtype.startswith("u") else array.astype(dtype)
    if shape[2:] in ((2,), (4,)):
        array[..., -1] = array.max()
    result = upscaler.upscale(array)
    assert result.dtype == array.dtype
    assert result.shape == (20, 28, *shape[2:])
    tolerance = 1 if dtype.startswith("u") else 1e-6
    np.testing.assert_allclose(result, array.repeat(4, 0).repeat(4, 1), atol=tolerance)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"\(3, 4, 5\)"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((3, 4), np.int32), "int32"),
        (np.full((3, 4), np.nan, np.float32), "not finite"),
    ],
)
def test_arrays_that_are_no_image_are_refused_in_words(upscaler: realesr.Upscaler, array: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        upscaler.upscale(array)


@pytest.mark.parametrize(
    ("mode", "result_mode"),
    [
        ("1", "L"),
        ("L", "L"),
        ("LA", "LA"),
        ("P", "RGB"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("CMYK", "RGB"),
        ("I;16", "I;16"),
    ],
)
def test_pil_images_of_every_mode_come_back_enlarged(upscaler: realesr.Upscaler, mode: str, result_mode: str) -> None:
    grey = Image.linear_gradient("L").resize((9, 6))
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    result = upscaler.upscale(image, 2.5)
    assert result.mode == result_mode
    assert result.size == (23, 15)


def test_a_palette_with_a_transparent_entry_gets_an_alpha_channel(upscaler: realesr.Upscaler) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    image.info["transparency"] = 1
    result = upscaler.upscale(image)
    assert result.mode == "RGBA"
    assert result.getpixel((0, 0))[3] == 0  # type: ignore[index]
    assert result.getpixel((15, 15)) == (255, 0, 0, 255)


def test_a_pil_image_comes_back_upright_with_profile_and_exif(upscaler: realesr.Upscaler) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    Image.new("RGB", (8, 4), "red").save(buffer, "JPEG", exif=exif, icc_profile=profile, dpi=(300, 300))
    result = upscaler.upscale(Image.open(buffer))
    assert result.size == (16, 32)
    assert result.info["icc_profile"] == profile
    assert result.info["dpi"] == (300, 300)
    kept = Image.Exif()
    kept.load(result.info["exif"])
    assert kept[0x010F] == "A camera"
    assert 0x0112 not in kept


def test_images_that_hold_no_picture_are_refused_in_words(upscaler: realesr.Upscaler) -> None:
    with pytest.raises(InputError, match="mode F"):
        upscaler.upscale(Image.new("F", (3, 3)))


@pytest.mark.parametrize("scale", [0.5, 17, -1])
def test_scales_out_of_range_are_refused_before_anything_runs(upscaler: realesr.Upscaler, scale: float) -> None:
    with pytest.raises(UsageError, match="expected a number from 1 to 16"):
        upscaler.upscale(np.zeros((3, 3), np.uint8), scale)
