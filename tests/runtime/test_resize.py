import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from realesr.runtime.resize import resize_bands
from realesr.runtime.rows import Band


def noise(height: int, width: int) -> Band:
    return np.random.default_rng(1).random((2, height, width), np.float32)


def resized(image: Band, to_height: int, to_width: int, rows: int) -> Band:
    bands = (image[:, start : start + rows] for start in range(0, image.shape[1], rows))
    _, height, width = image.shape
    parts = resize_bands(bands, height_px=height, width_px=width, to_height_px=to_height, to_width_px=to_width)
    return np.concatenate(list(parts), axis=1)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 20),
    to_height=st.integers(1, 400),
    to_width=st.integers(1, 30),
    rows=st.integers(1, 100),
)
def test_bands_give_what_pillow_gives_for_the_whole_image(
    height: int, width: int, to_height: int, to_width: int, rows: int
) -> None:
    image = noise(height, width)
    expected = [
        np.asarray(Image.fromarray(plane).resize((to_width, to_height), Image.Resampling.LANCZOS)) for plane in image
    ]
    np.testing.assert_allclose(resized(image, to_height, to_width, rows), np.stack(expected), atol=2e-5)


def test_the_same_size_passes_through_untouched() -> None:
    image = noise(9, 5)
    np.testing.assert_array_equal(resized(image, 9, 5, 4), image)


def test_values_beyond_one_are_kept_for_the_encoder_to_clamp() -> None:
    edge = np.zeros((1, 40, 40), np.float32)
    edge[:, 20:] = 1
    assert resized(edge, 80, 80, 16).max() > 1.01


@pytest.mark.parametrize("factor", [4, 7])
def test_shrinking_does_not_alias(factor: int) -> None:
    stripes = np.zeros((1, 28 * factor, 8), np.float32)
    stripes[:, ::2] = 1
    inner = resized(stripes, 28, 8, 16)[:, 4:-4]
    np.testing.assert_allclose(inner, 0.5, atol=0.02)
