import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import realesr
from realesr.errors import InputError, UsageError
from realesr.images.arrays import pixels_from_pil
from realesr.images.colour import is_srgb

from .image_files import ADOBE_PRIMARIES, SRGB_PRIMARIES, XMP, exif_block, grey_profile, photo, rgb_profile


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
        ("P", "L"),
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


@pytest.mark.parametrize(
    "floats",
    [
        np.linspace(0, 255, 12, dtype=np.float32).reshape(3, 4),
        np.linspace(-1, 1, 12).reshape(3, 4),
        np.full((3, 4), 1e300),
        np.full((3, 4, 3), 1.01, np.float16),
    ],
)
def test_floats_outside_0_to_1_are_refused_with_their_range(upscaler: realesr.Upscaler, floats: Any) -> None:
    with pytest.raises(InputError, match=r"got floats from .* expected \[0, 1\]"):
        upscaler.upscale(floats)


def test_floats_that_rounding_left_outside_are_clamped(upscaler: realesr.Upscaler) -> None:
    result = upscaler.upscale(np.array([[-1e-6, 1 + 1e-6]], np.float32))
    assert (result.min(), result.max()) == (0, 1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1, 2], [3, 4]], "got a list, expected a PIL image or a numpy array"),
        (None, "got a NoneType"),
        ("photo.jpg", "got the path 'photo.jpg'.* upscale_file"),
        (Path("photo.jpg"), "got the path 'photo.jpg'"),
    ],
)
def test_what_is_no_image_is_named(upscaler: realesr.Upscaler, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        upscaler.upscale(value)


def stored(image: Image.Image, form: str, **options: Any) -> Image.Image:
    """The image as it opens from a file, not loaded yet."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return Image.open(buffer)


@pytest.mark.parametrize(
    ("image", "transparency", "result_mode"),
    [
        (Image.fromarray(photo(5, 6)), tuple(int(v) for v in photo(5, 6)[2, 3]), "RGBA"),
        (Image.fromarray(photo(5, 6, 1)[:, :, 0]), int(photo(5, 6, 1)[2, 3, 0]), "LA"),
        (Image.fromarray(photo(5, 6, 1)[:, :, 0].astype(np.uint16) * 257), int(photo(5, 6, 1)[2, 3, 0]) * 257, "LA"),
    ],
)
def test_a_transparent_colour_becomes_alpha(
    upscaler: realesr.Upscaler, image: Image.Image, transparency: Any, result_mode: str
) -> None:
    result = upscaler.upscale(stored(image, "PNG", transparency=transparency), 4)
    assert result.mode == result_mode
    alpha = np.asarray(result)[::4, ::4, -1]
    values = np.atleast_3d(np.asarray(image))
    np.testing.assert_array_equal(alpha, np.where((values == transparency).all(axis=2), 0, 255))


def test_the_profile_of_another_kind_of_image_is_dropped_and_of_a_converted_one_replaced(
    upscaler: realesr.Upscaler,
) -> None:
    adobe, linear = rgb_profile(ADOBE_PRIMARIES, 2.2), rgb_profile(SRGB_PRIMARIES, 1.0)
    colour = Image.fromarray(photo(5, 6))
    for image, icc, expected in (
        (colour, adobe, adobe),
        (colour.convert("L"), adobe, None),
        (colour, grey_profile(2.2), None),
        (colour.convert("L"), grey_profile(2.2), grey_profile(2.2)),
        (colour, b"damaged", None),
    ):
        image.info["icc_profile"] = icc
        assert upscaler.upscale(image).info.get("icc_profile") == expected
    converted: list[tuple[Image.Image, bytes | None]] = [(colour, linear)]
    converted += [(colour.convert("CMYK"), icc) for icc in (adobe, None)]
    for image, before in converted:
        image.info["icc_profile"] = before
        found = upscaler.upscale(image).info["icc_profile"]
        assert found not in (before, None)
        assert is_srgb(found)


def test_metadata_get_the_new_size_and_lose_the_thumbnail(upscaler: realesr.Upscaler) -> None:
    exif = b"Exif\0\0" + exif_block(orientation=6)
    image = stored(Image.fromarray(photo(40, 60)), "JPEG", exif=exif, xmp=XMP, dpi=(200, 100))
    result = upscaler.upscale(image, 2)
    assert result.size == (80, 120)
    kept = Image.Exif()
    kept.load(result.info["exif"])
    fields = kept.get_ifd(0x8769)
    assert (fields[0xA002], fields[0xA003]) == (80, 120)
    assert fields[0x9003] == "2021:05:04 10:11:12"
    assert not kept.get_ifd(1)  # the directory of the thumbnail
    assert 0x0112 not in kept
    assert b'tiff:Orientation="1"' in result.info["xmp"]
    assert b"tiff:ImageWidth='80'" in result.info["xmp"]
    assert result.info["dpi"] == (100, 200)
    again = stored(result, "JPEG", exif=result.info["exif"])
    assert again.getexif()[0x010F] == "Maker Co"


def test_metadata_of_a_tiff_say_nothing_about_its_own_pixels(upscaler: realesr.Upscaler) -> None:
    image = stored(Image.fromarray(photo(4, 6)), "TIFF", tiffinfo={0x010F: "Maker", 0x0112: 6, 0x0132: "2021"})
    result = upscaler.upscale(image)
    assert result.size == (16, 24)
    exif = Image.Exif()
    exif.load(result.info["exif"])
    assert exif[0x010F] == "Maker"
    assert (exif.get(0x0100, 16), exif.get(0x0101, 24)) == (16, 24)
    assert not {0x0102, 0x0111, 0x0117, 0x0112} & set(exif)


def test_exif_that_is_damaged_is_left_out(upscaler: realesr.Upscaler) -> None:
    image = Image.fromarray(photo(4, 6))
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff\xff"
    assert "exif" not in upscaler.upscale(image).info


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I"])
def test_grey_of_16_bit_keeps_its_values_in_every_mode(mode: str) -> None:
    values = np.arange(0, 65536, 2521, dtype=np.uint16).reshape(2, 13)
    data = values.astype({"I;16B": ">u2", "I": "<i4"}.get(mode, "<u2"))
    image = Image.frombytes(mode, (13, 2), data.tobytes())
    array, _ = pixels_from_pil(image)
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(array, values)


def test_integers_beyond_16_bit_are_refused() -> None:
    for value in (-1, 65536):
        with pytest.raises(InputError, match=f"mode I with values from {value} to {value}, expected 0 to 65535"):
            pixels_from_pil(Image.new("I", (3, 3), value))


def test_a_pil_image_that_is_cut_off_is_refused_in_words(upscaler: realesr.Upscaler) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(60, 60)).save(buffer, "JPEG")
    with pytest.raises(InputError, match="PIL image that cannot be read"):
        upscaler.upscale(Image.open(io.BytesIO(buffer.getvalue()[:900])))
