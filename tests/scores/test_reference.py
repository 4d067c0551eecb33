"""PSNR and SSIM on Y against scikit-image's."""

import math

import numpy as np
import pytest
import skimage.data
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from realesr.errors import InputError
from realesr.scores.luma import luma, rounded_luma
from realesr.scores.reference import psnr_y, ssim_y

BORDERS = pytest.mark.parametrize("border_px", [0, 4, 7])


def pair():
    """Return a photo with noise, and the photo; more rows than are computed at once."""
    photo = skimage.data.astronaut()[:300, 100:261]
    noise = np.random.default_rng(3).normal(0, 9, photo.shape)
    return (photo + noise).round().clip(0, 255).astype(np.uint8), photo


def inner_luma(image, border_px):
    inner = image[border_px : image.shape[0] - border_px, border_px : image.shape[1] - border_px]
    return rgb2ycbcr(inner)[..., 0]


@BORDERS
def test_psnr_is_that_of_scikit_image_on_y(border_px):
    image, reference = pair()
    a, b = inner_luma(image, border_px), inner_luma(reference, border_px)
    expected = peak_signal_noise_ratio(b, a, data_range=255)
    assert psnr_y(image, reference, border_px=border_px) == pytest.approx(expected, rel=1e-9)


@BORDERS
def test_ssim_is_that_of_scikit_image_on_y(border_px):
    image, reference = pair()
    a, b = inner_luma(image, border_px), inner_luma(reference, border_px)
    expected = structural_similarity(
        b, a, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim_y(image, reference, border_px=border_px) == pytest.approx(expected, rel=1e-9)


def test_the_default_border_is_that_of_four_times():
    image, reference = pair()
    assert psnr_y(image, reference) == psnr_y(image, reference, border_px=4)
    assert ssim_y(image, reference) == ssim_y(image, reference, border_px=4)


def test_equal_images_have_an_infinite_ratio_and_a_similarity_of_one():
    _, photo = pair()
    assert psnr_y(photo, photo) == math.inf
    assert ssim_y(photo, photo) == pytest.approx(1, abs=1e-12)


def test_y_is_that_of_bt_601():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(luma(colours), [[16, 235, 81.481, 144.553, 40.966]], atol=1e-9)
    assert rounded_luma(colours).tolist() == [[16, 235, 81, 145, 41]]
    np.testing.assert_allclose(luma(np.array([[0, 255]], np.uint8)), [[16, 235]], atol=1e-3)


def test_sizes_that_differ_are_refused_with_both():
    image, reference = pair()
    for compare in (psnr_y, ssim_y):
        with pytest.raises(InputError, match="161 x 299 px and a reference of 161 x 300 px"):
            compare(image[1:], reference)


def test_a_border_that_leaves_nothing_is_refused():
    small = np.zeros((18, 40, 3), np.uint8)
    with pytest.raises(InputError, match="at least 19 px a side with a border of 4 px left out"):
        ssim_y(small, small)
    with pytest.raises(InputError, match="at least 21 px a side"):
        psnr_y(small, small, border_px=10)
    assert psnr_y(small, small, border_px=8) == math.inf
