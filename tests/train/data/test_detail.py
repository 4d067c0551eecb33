"""Checks the measures of detail: noise and blur of known strength, nothing to see, and how tiles are cut from rows."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage
from skimage import data

from realesr.images.info import ImageInfo
from realesr.images.reader import open_image
from realesr.train.data import detail
from realesr.train.data.detail import Detail, LumaTiles, immerkaer_noise


def measured(pixels: NDArray[np.uint8] | Image.Image, folder: Path, rows: int = 100) -> Detail:
    """Measure an image as `data check` does, from a file that is read in bands."""
    Image.fromarray(np.asarray(pixels)).save(folder / "image.png")
    with open_image(folder / "image.png") as reader:
        tiles = LumaTiles(reader.info)
        while len(band := reader.read_rows(rows)):
            tiles.add(band)
    found = tiles.detail()
    assert found is not None
    return found


def noisy(pixels: NDArray[np.uint8], levels: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, levels, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)


PHOTOS = (data.astronaut, data.chelsea, data.coffee, data.camera)


@pytest.mark.parametrize("photo", PHOTOS)
def test_sharp_photos_are_neither_flat_nor_blurred_nor_noisy(photo: object, tmp_path: Path) -> None:
    found = measured(photo(), tmp_path)  # type: ignore[operator]
    assert found.structure > 0.7
    assert found.sharpness > 0.8
    assert found.noise < 2


@pytest.mark.parametrize("photo", PHOTOS)
def test_blur_and_enlargement_are_seen_whatever_the_contrast(photo: object, tmp_path: Path) -> None:
    image = Image.fromarray(photo())  # type: ignore[operator]
    quarter = image.resize((image.width // 4, image.height // 4), Image.Resampling.BICUBIC)
    enlarged = quarter.resize(image.size, Image.Resampling.BICUBIC)
    for soft in (image.filter(ImageFilter.GaussianBlur(2)), image.filter(ImageFilter.GaussianBlur(5)), enlarged):
        faint = (np.asarray(soft) // 3 + 80).astype(np.uint8)
        for pixels in (np.asarray(soft), faint, noisy(np.asarray(soft), 3)):
            assert measured(pixels, tmp_path).sharpness < 0.45


@pytest.mark.parametrize("levels", [10, 15, 25])
@pytest.mark.parametrize("photo", PHOTOS[:3])
def test_noise_is_measured_in_levels_of_luma(photo: object, levels: float, tmp_path: Path) -> None:
    """Independent noise of equal strength in R, G and B adds up to 0.668 of it in luma; texture may add some."""
    expected = levels * np.sqrt(0.299**2 + 0.587**2 + 0.114**2)
    assert measured(noisy(photo(), levels), tmp_path).noise == pytest.approx(expected, rel=0.2)  # type: ignore[operator]


def test_fine_texture_is_not_taken_for_noise(tmp_path: Path) -> None:
    """All of this photo is grass: of its every tile Immerkaer's method alone finds 9 levels or more."""
    assert measured(data.grass(), tmp_path).noise == 0


def flat_images() -> dict[str, NDArray[np.uint8]]:
    down, across = np.mgrid[0:200, 0:240]
    ramp = (across + down / 2)[:, :, None].repeat(3, axis=2).clip(0, 255).astype(np.uint8)
    colour = np.full((200, 240, 3), (30, 90, 160), np.uint8)
    return {"black": colour * 0, "colour": colour, "white": colour * 0 + 255, "ramp": ramp, "noise": noisy(colour, 5)}


@pytest.mark.parametrize("name", flat_images())
def test_colours_ramps_and_noise_have_no_structure(name: str, tmp_path: Path) -> None:
    found = measured(flat_images()[name], tmp_path)
    assert (found.structure, found.sharpness) == (0, 0)


def test_the_measures_do_not_depend_on_the_bands_that_rows_come_in(tmp_path: Path) -> None:
    found = [measured(data.chelsea(), tmp_path, rows) for rows in (1, 7, 64, 300)]
    assert len(set(found)) == 1


@pytest.mark.parametrize("size", [(64, 64), (33, 500), (2000, 70)])
def test_images_of_every_shape_are_measured(size: tuple[int, int], tmp_path: Path) -> None:
    checks = np.kron(np.indices((size[0] // 4 + 1, size[1] // 4 + 1)).sum(axis=0) % 2, np.ones((4, 4)))
    pixels = (checks[: size[0], : size[1], None] * [200, 180, 90] + 20).astype(np.uint8)
    assert measured(pixels, tmp_path).structure == 1


def test_images_below_32_px_are_not_measured() -> None:
    tiles = LumaTiles(ImageInfo(width_px=400, height_px=31, bits=8, is_grey=False, has_alpha=False, format="png"))
    tiles.add(np.zeros((31, 400, 3), np.uint8))
    assert tiles.detail() is None


def test_16_bits_and_grey_are_measured_as_8_bits_and_colours_are(tmp_path: Path) -> None:
    grey = data.camera()
    found = measured(grey, tmp_path)
    for pixels in (grey[:, :, None].repeat(3, axis=2), grey.astype(np.uint16) * 257):
        other = measured(pixels, tmp_path)
        assert other.sharpness == pytest.approx(found.sharpness, rel=1e-3)
        assert other.noise == pytest.approx(found.noise, rel=1e-3)


def test_immerkaers_estimate_is_that_of_his_mask() -> None:
    tiles = np.random.default_rng(0).normal(128, 7, (3, 50, 50)).astype(np.float32)
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    for tile, found in zip(tiles, immerkaer_noise(tiles), strict=True):
        responses = np.abs(ndimage.convolve(tile.astype(float), mask)[1:-1, 1:-1])
        assert found == pytest.approx(np.sqrt(np.pi / 2) / 6 * responses.sum() / (48 * 48), rel=1e-5)
        assert found == pytest.approx(7, rel=0.06)


def test_white_noise_leaves_in_each_scale_what_is_taken_off_for_it() -> None:
    """The scales of an impulse are what each weighs its neighbours with: noise adds up in squares."""
    spline = np.array([1, 4, 6, 4, 1]) / 16
    smooth = np.zeros((65, 65))
    smooth[32, 32] = 1
    for step, expected in zip((1, 2, 4), detail._NOISE_IN_SCALE, strict=True):
        weights = np.zeros(4 * step + 1)
        weights[::step] = spline
        smoother = ndimage.convolve1d(ndimage.convolve1d(smooth, weights, axis=0), weights, axis=1)
        assert np.sqrt(((smooth - smoother) ** 2).sum()) == pytest.approx(expected, abs=0.002)
        smooth = smoother


def test_each_scale_is_the_difference_of_two_smoothed_images() -> None:
    tiles = np.random.default_rng(1).uniform(0, 255, (2, 64, 64)).astype(np.float32)
    smooth = tiles.astype(float)
    for step, found in zip((1, 2, 4), detail._deviations(tiles), strict=True):
        weights = np.zeros(4 * step + 1)
        weights[::step] = np.array([1, 4, 6, 4, 1]) / 16
        smoother = ndimage.convolve1d(ndimage.convolve1d(smooth, weights, axis=1), weights, axis=2)
        assert found == pytest.approx((smooth - smoother)[:, 14:-14, 14:-14].std(axis=(1, 2)), rel=1e-4)
        smooth = smoother
