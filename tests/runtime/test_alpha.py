import numpy as np
import pytest

from realesr.runtime.alpha import BLEED_RADII_PX, bleed_bands, bleed_colour, limit_bands
from realesr.runtime.rows import Band


def disc(height: int = 90, width: int = 70, radius: int = 20) -> tuple[Band, Band]:
    """A red disc on hidden green: (3, h, w) colour, (h, w) alpha."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2
    colour = np.where(inside, np.array([1, 0, 0])[:, None, None], np.array([0, 1, 0])[:, None, None])
    return colour.astype(np.float32), inside.astype(np.float32)


def test_hidden_colour_near_an_edge_becomes_that_of_the_visible_side() -> None:
    colour, alpha = disc()
    filled = bleed_colour(colour, alpha)
    near = filled[:, 45, 35 + 21 : 35 + 21 + 10]
    np.testing.assert_allclose(near, np.array([1, 0, 0])[:, None].repeat(10, 1), atol=1e-5)


def test_visible_pixels_do_not_change() -> None:
    colour, alpha = disc()
    alpha *= 0.25
    np.testing.assert_array_equal(bleed_colour(colour, alpha)[:, alpha > 0], colour[:, alpha > 0])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_image_that_is_all_visible_or_all_hidden_does_not_change(value: float) -> None:
    colour, alpha = disc()
    np.testing.assert_array_equal(bleed_colour(colour, np.full_like(alpha, value)), colour)


def test_nearly_hidden_pixels_weigh_little() -> None:
    colour = np.zeros((1, 1, 5), np.float32)
    colour[0, 0] = [1, 0, 0.3, 0, 0]
    alpha = np.array([[1, 0, 0.01, 0, 0]], np.float32)
    assert bleed_colour(colour, alpha)[0, 0, 1] == pytest.approx((1 + 0.003) / 1.01, abs=1e-5)


@pytest.mark.parametrize("rows", [1, 13, 64, 200])
def test_bands_bleed_as_the_whole_image_does(rows: int) -> None:
    colour, alpha = disc(height=170, radius=30)
    image = np.concatenate([colour, alpha[None]])
    bands = (image[:, start : start + rows] for start in range(0, 170, rows))
    streamed = np.concatenate(list(bleed_bands(bands, height_px=170)), axis=1)
    np.testing.assert_allclose(streamed, bleed_colour(colour, alpha), atol=1e-5)


def test_colour_reaches_as_far_as_the_largest_window() -> None:
    colour, alpha = np.zeros((1, 1, 100), np.float32), np.zeros((1, 100), np.float32)
    colour[..., 0] = alpha[..., 0] = 1
    filled = bleed_colour(colour, alpha)[0, 0]
    assert np.all(filled[: max(BLEED_RADII_PX) + 1] == 1)
    assert np.all(filled[max(BLEED_RADII_PX) + 1 :] == 0)


@pytest.mark.parametrize(("to_height", "to_width"), [(280, 200), (175, 125), (70, 50), (90, 300)])
def test_enlarged_alpha_is_kept_within_what_lies_round_it_in_the_source(to_height: int, to_width: int) -> None:
    alpha = disc(height=70, width=50, radius=15)[1][None]
    enlarged = np.random.default_rng(0).normal(0.5, 1, (1, to_height, to_width)).astype(np.float32)
    limited = np.concatenate(
        list(limit_bands([enlarged], [alpha], size=(70, 50), to_size=(to_height, to_width))), axis=1
    )
    for y, x in np.random.default_rng(1).integers(0, (to_height, to_width), (500, 2)):
        row, column = int((y + 0.5) * 70 / to_height), int((x + 0.5) * 50 / to_width)
        near = alpha[0, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert limited[0, y, x] == np.clip(enlarged[0, y, x], near.min(), near.max())
