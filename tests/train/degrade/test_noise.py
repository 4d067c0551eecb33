"""Checks noise by its statistics."""

import numpy as np
import pytest
import torch

from realesr.train.degrade.degradation import NoiseDraw
from realesr.train.degrade.noise import add_noise, poisson_by_levels, poisson_by_photons


def gaussian(seed: int, *, grey: bool = False, strength: float = 20.0) -> NoiseDraw:
    return NoiseDraw(kind="gaussian", strength=strength, grey=grey, seed=seed)


def poisson(seed: int, *, grey: bool = False, strength: float = 1.0) -> NoiseDraw:
    return NoiseDraw(kind="poisson", strength=strength, grey=grey, seed=seed)


def fields(draws: list[NoiseDraw | None], *, level: float = 0.5, arithmetic: str = "corrected") -> np.ndarray:
    """Return what was added to flat images, (N, 3, 200, 200)."""
    flat = torch.full((len(draws), 3, 200, 200), level)
    noisy = add_noise(flat, draws, arithmetic=arithmetic, photons=256)  # type: ignore[arg-type]
    return (noisy - flat).double().numpy()


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("strength", [1.0, 10.0, 30.0])
@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_has_its_strength_and_no_mean(strength: float, grey: bool) -> None:
    field = fields([gaussian(1, strength=strength, grey=grey)])[0]
    assert field.std() * 255 == pytest.approx(strength, rel=0.02)
    assert abs(field.mean()) * 255 < strength * 0.015


def test_gaussian_noise_is_white() -> None:
    spectrum = np.abs(np.fft.fft2(fields([gaussian(2)])[0, 0])) ** 2
    low, high = spectrum[1:40, 1:40].mean(), spectrum[60:100, 60:100].mean()
    assert low == pytest.approx(high, rel=0.15)


def test_colours_are_independent_and_grey_is_the_same_in_all() -> None:
    colour, grey = fields([gaussian(3), gaussian(4, grey=True)])
    assert abs(correlation(colour[0], colour[1])) < 0.02
    np.testing.assert_allclose(grey[0], grey[1], atol=1e-7)
    colour, grey = fields([poisson(3), poisson(4, grey=True)])
    assert abs(correlation(colour[0], colour[1])) < 0.02
    np.testing.assert_allclose(grey[0], grey[1], atol=1e-7)


@pytest.mark.parametrize("make", [gaussian, poisson])
@pytest.mark.parametrize("grey", [False, True])
def test_samples_are_independent_of_each_other_and_follow_from_their_seeds(make, grey: bool) -> None:
    first, second, again = fields([make(5, grey=grey), make(6, grey=grey), make(5, grey=grey)])
    assert abs(correlation(first[0], second[0])) < 0.02
    assert np.array_equal(first, again)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_the_variance_of_poisson_noise_grows_with_light(level: float) -> None:
    generator = torch.Generator().manual_seed(7)
    field = poisson_by_photons(torch.full((3, 200, 200), level), 256, generator).double()
    assert float(field.var()) == pytest.approx(level / 256, rel=0.03)
    assert abs(float(field.mean())) < 1e-3
    weak = fields([poisson(8, strength=0.25)], level=level)[0]
    assert weak.var() == pytest.approx(level / 256 / 16, rel=0.03)


@pytest.mark.parametrize(("levels", "photons"), [(1, 1), (2, 2), (3, 4), (128, 128), (129, 256), (256, 256)])
def test_the_reference_takes_as_many_photons_as_there_are_levels(levels: int, photons: int) -> None:
    """Count levels as NumPy does; the variance shows how many photons were taken."""
    line = torch.linspace(0, 1, levels) if levels > 1 else torch.tensor([1.0])
    line = (line * 255).round() / 255
    light = line.repeat(1, 300, -(-300 // levels))
    assert 2 ** np.ceil(np.log2(len(np.unique((light.numpy() * 255).round())))) == photons
    field = poisson_by_levels(light, torch.Generator().manual_seed(9)).double()
    assert float((field**2).mean()) == pytest.approx(float(light.mean()) / photons, rel=0.05)


def test_a_flat_patch_drowns_in_the_faithful_arithmetic_and_does_not_in_the_corrected() -> None:
    flat = torch.full((3, 200, 200), 128 / 255)
    assert float(poisson_by_levels(flat, torch.Generator().manual_seed(1)).std()) * 255 > 170
    assert fields([poisson(1)])[0].std() * 255 < 12


@pytest.mark.parametrize("arithmetic", ["corrected", "faithful"])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_stay_finite_and_in_range(arithmetic: str, level: float) -> None:
    draws = [gaussian(1), gaussian(2, grey=True), poisson(3), poisson(4, grey=True, strength=3.0), None]
    added = fields(draws, level=level, arithmetic=arithmetic)
    assert np.isfinite(added).all()
    assert (added + level).min() >= 0
    assert (added + level).max() <= 1
    assert (added[4] == 0).all()


def test_values_beyond_the_range_do_not_stop_poisson_noise() -> None:
    wild = torch.tensor([-0.2, 1.3]).repeat(1, 3, 4, 4)
    for arithmetic in ("corrected", "faithful"):
        noisy = add_noise(wild, [poisson(1)], arithmetic=arithmetic, photons=256)  # type: ignore[arg-type]
        assert bool(torch.isfinite(noisy).all())
