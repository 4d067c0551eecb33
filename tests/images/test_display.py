"""Pixels as a screen shows them."""

import io
from typing import Literal

import numpy as np
import pytest
from PIL import Image, ImageCms

from realesr.images.display import DARK, LIGHT, displayed
from realesr.images.info import ImageInfo

from .image_files import grey_profile, libvips_profile, photo


def info(
    bits: Literal[8, 16] = 8, *, is_grey: bool = False, has_alpha: bool = False, icc: bytes | None = None
) -> ImageInfo:
    return ImageInfo(width_px=1, height_px=1, bits=bits, is_grey=is_grey, has_alpha=has_alpha, format="png", icc=icc)


def test_srgb_stays_as_it_is() -> None:
    pixels = photo(20, 30)
    assert (displayed(pixels, info(), square_px=8) == pixels).all()


def test_a_wide_gamut_is_converted_as_pillow_does() -> None:
    icc = libvips_profile("p3")
    pixels = photo(20, 30)
    ours = displayed(pixels, info(icc=icc), square_px=8)
    pillow = ImageCms.profileToProfile(
        Image.fromarray(pixels),
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert np.abs(ours.astype(int) - np.asarray(pillow)).max() <= 2
    assert np.abs(ours.astype(int) - pixels).max() > 10


def test_grey_becomes_three_equal_channels_through_its_curve() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    plain = displayed(pixels, info(is_grey=True), square_px=8)
    darker = displayed(pixels, info(is_grey=True, icc=grey_profile(1.8)), square_px=8)
    assert (plain == pixels).all()
    assert plain.shape == darker.shape == (16, 16, 3)
    assert (darker[:, :, 0] == darker[:, :, 2]).all()
    assert darker[8, 0, 0] == pytest.approx(255 * (1.055 * (128 / 255) ** (1.8 / 2.4) - 0.055), abs=2)


def test_16_bit_is_rounded() -> None:
    pixels = np.array([0, 128, 129, 65535], np.uint16).reshape(1, 4, 1)
    assert displayed(pixels, info(16, is_grey=True), square_px=8)[0, :, 0].tolist() == [0, 0, 1, 255]


def test_what_is_transparent_shows_a_checkerboard() -> None:
    pixels = np.zeros((4, 8, 4), np.uint8)
    pixels[:, 4:, 3] = 255
    pixels[0, 0, 3] = 51
    shown = displayed(pixels, info(has_alpha=True), square_px=2)[:, :, 0]
    assert shown[0].tolist() == [round(LIGHT * 0.8), LIGHT, DARK, DARK, 0, 0, 0, 0]
    assert shown[2, :4].tolist() == [DARK, DARK, LIGHT, LIGHT]
