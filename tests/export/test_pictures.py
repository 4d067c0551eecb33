"""The pictures of a proof: the same everywhere, of any size, and like photos in what matters."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from realesr.export.pictures import _PHOTO, made_photo, noise, photo

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("make", [photo, made_photo, noise])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 7), (1, 40, 33)])
def test_pictures_are_levels_of_8_bits_of_any_size(make, shape: tuple[int, int, int]) -> None:
    batch = make(*shape)
    assert batch.shape == (shape[0], 3, *shape[1:])
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    assert np.array_equal(batch, np.rint(batch * 255).astype(np.uint8).astype(np.float32) / 255)
    assert np.array_equal(batch, make(*shape)), "not the same twice"
    assert not np.array_equal(batch, make(*shape, seed=1))


def spectrum_slope(picture: NDArray[np.float32]) -> float:
    """Exponent of the power over spatial frequency, of grey."""
    grey = picture.mean(axis=0)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(len(grey)), np.fft.fftfreq(len(grey)), indexing="ij"))
    inside = (frequencies > 0.02) & (frequencies < 0.3)
    return float(np.polyfit(np.log(frequencies[inside]), np.log(power[inside]), 1)[0])


def test_power_falls_with_frequency_as_in_photos_and_not_in_noise() -> None:
    # Photos: about -2 (Field, "Relations between the statistics of natural images", JOSA A 4, 1987), softer ones less.
    assert -3.2 < spectrum_slope(made_photo(1, 192, 192)[0]) < -1.6
    assert abs(spectrum_slope(noise(1, 192, 192)[0])) < 0.3


def test_a_made_photo_has_flat_areas_edges_and_both_ends_of_the_range() -> None:
    picture = made_photo(1, 128, 128)[0]
    steps = np.abs(np.diff(picture.mean(axis=0), axis=1))
    assert (steps < 0.03).mean() > 0.35
    assert (steps > 0.3).mean() > 0.005
    assert picture.min() == 0
    assert picture.max() == 1


def test_the_photo_is_the_sample_photo() -> None:
    """The one that the demo enlarges: the same bytes, and no second copy of them in the repository."""
    sample = ROOT / "export" / "portrait.jpg"
    assert _PHOTO.read_bytes() == sample.read_bytes()
    demo = ROOT / "scripts" / "demo"
    assert "upscale export/portrait.jpg" in demo.read_text(encoding="utf-8")
    copies = [file for folder in ("examples", "docs", "tests") for file in (ROOT / folder).rglob("portrait.jpg")]
    assert copies == []


def test_tiles_of_the_photo_are_its_pixels_and_mirrored_beyond_them() -> None:
    whole = photo(1, 200, 160)[0]
    tile, large = photo(1, 40, 30, seed=3)[0], photo(1, 210, 170)[0]
    places = np.lib.stride_tricks.sliding_window_view(whole, (3, 40, 30))
    assert (places == tile).all(axis=(-3, -2, -1)).any()
    assert np.array_equal(large[:, :200, :160], whole)
    assert np.array_equal(large[:, 200:, :160], whole[:, :189:-1])
