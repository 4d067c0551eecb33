"""Compares resizes with OpenCV, and checks that they move nothing."""

import math
from typing import Literal

import numpy as np
import pytest
import torch

from realesr.train.degrade.degradation import Arithmetic, Mode, ResizeDraw
from realesr.train.degrade.resizing import first_resize, resize

MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")
SIDE = 400
FACTORS = [0.15 + 0.045 * step for step in range(31)]


def to(mode: Mode, height: int, width: int, factor: float = 0.5) -> ResizeDraw:
    return ResizeDraw(mode=mode, height_px=height, width_px=width, factor=factor)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).random((height, width), np.float32)


@pytest.mark.parametrize("size", [(50, 61), (133, 120), (200, 97), (3, 1)])
def test_area_is_that_of_opencv(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    given = image(200, 120)
    made = resize(torch.from_numpy(given)[None, None], to("area", *size))[0, 0].numpy()
    np.testing.assert_allclose(made, cv2.resize(given, size[::-1], interpolation=cv2.INTER_AREA), atol=1e-6)


@pytest.mark.parametrize(("mode", "flag"), [("bilinear", "INTER_LINEAR"), ("bicubic", "INTER_CUBIC")])
@pytest.mark.parametrize("size", [(50, 61), (300, 180)])
def test_bilinear_and_bicubic_are_those_of_opencv(mode: Mode, flag: str, size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    given = image(200, 120)
    made = resize(torch.from_numpy(given)[None, None], to(mode, *size))[0, 0].numpy()
    np.testing.assert_allclose(made, cv2.resize(given, size[::-1], interpolation=getattr(cv2, flag)), atol=2e-4)


def drift(mode: Mode, factor: float, arithmetic: Arithmetic, window: int) -> float:
    """Return how many HR px a ramp is moved at 90 % of its width, there and back: a mean over 2 * window + 1 px."""
    ramp = torch.arange(SIDE, dtype=torch.float32).repeat(1, 1, 8, 1)
    height, side = math.floor(8 * factor), math.floor(SIDE * factor)
    small = first_resize(ramp, to(mode, height, side, factor), arithmetic)
    assert small.shape == (1, 1, height, side)
    back = resize(small, to("bilinear", 8, SIDE))
    at = SIDE * 9 // 10
    return float((back - ramp)[0, 0, 4, at - window : at + window + 1].mean())


@pytest.mark.parametrize("mode", MODES)
def test_nothing_drifts_between_lr_and_hr(mode: Mode) -> None:
    """Allow 0.05 HR px. The boxes of area make small steps, so there the mean over a few pixels counts."""
    for factor in FACTORS:
        assert abs(drift(mode, factor, "corrected", 10 if mode == "area" else 0)) < 0.05, factor


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_reference_drifts_by_pixels(mode: Literal["bilinear", "bicubic"]) -> None:
    found = [abs(drift(mode, factor, "faithful", 0)) for factor in [*FACTORS, 0.1748]]
    assert max(found) > 2
    assert np.mean(found) > 0.2


def test_no_pixel_of_area_is_an_eighth_of_a_pixel_off_and_the_references_are() -> None:
    assert max(abs(drift("area", factor, "corrected", 0)) for factor in FACTORS) <= 0.126
    assert max(abs(drift("area", factor, "faithful", 0)) for factor in FACTORS) > 0.3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("arithmetic", ["corrected", "faithful"])
def test_the_same_size_is_left_untouched_and_one_pixel_can_be_reached(mode: Mode, arithmetic: Arithmetic) -> None:
    given = torch.from_numpy(image(9, 5))[None, None]
    assert torch.equal(first_resize(given, to(mode, 9, 5, 1.0), arithmetic), given)
    assert first_resize(given, to(mode, 1, 1, 0.15), arithmetic).shape == (1, 1, 1, 1)
    np.testing.assert_allclose(resize(torch.ones(1, 1, 1, 1), to(mode, 7, 3), arithmetic).numpy(), 1, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_constant_images_stay_constant(mode: Mode) -> None:
    flat = torch.full((1, 3, 40, 30), 0.3)
    for size in ((17, 13), (55, 44)):
        np.testing.assert_allclose(resize(flat, to(mode, *size)).numpy(), 0.3, atol=1e-6)
