"""Compares kernels with the paper's formulas, pixel by pixel with SciPy, and checks what kernels must be."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

from realesr.train.degrade.degradation import KernelDraw
from realesr.train.degrade.kernels import kernels_of

DRAWS = {
    "gaussian": KernelDraw(family="gaussian", side_px=13, sigma_x=1.7, sigma_y=1.7),
    "gaussian_aniso": KernelDraw(family="gaussian_aniso", side_px=21, sigma_x=2.8, sigma_y=0.7, theta=0.6),
    "generalised": KernelDraw(family="generalised", side_px=15, sigma_x=1.2, sigma_y=1.2, beta=0.5),
    "generalised_aniso": KernelDraw(
        family="generalised_aniso", side_px=19, sigma_x=0.4, sigma_y=2.2, theta=-2.0, beta=3.1
    ),
    "plateau": KernelDraw(family="plateau", side_px=7, sigma_x=2.5, sigma_y=2.5, beta=1.0),
    "plateau_aniso": KernelDraw(family="plateau_aniso", side_px=11, sigma_x=2.0, sigma_y=0.9, theta=1.1, beta=1.8),
    "sinc": KernelDraw(family="sinc", side_px=21, cutoff=math.pi / 3),
    "sinc_small": KernelDraw(family="sinc", side_px=7, cutoff=math.pi / 2),
    "sinc_nyquist": KernelDraw(family="sinc", side_px=13, cutoff=math.pi),
}


def oracle(draw: KernelDraw) -> Any:
    """Compute the formula at one pixel after the other, in float64."""
    half, canvas = draw.side_px // 2, np.zeros((21, 21))
    for y in range(-half, half + 1):
        for x in range(-half, half + 1):
            canvas[10 + y, 10 + x] = value_at(draw, x, y)
    return canvas / canvas.sum()


def value_at(draw: KernelDraw, x: int, y: int) -> Any:
    if draw.family == "sinc":
        r = math.hypot(x, y)
        return (
            draw.cutoff**2 / (4 * math.pi) if r == 0 else draw.cutoff * special.j1(draw.cutoff * r) / (2 * math.pi * r)
        )
    turn = np.array([[math.cos(draw.theta), -math.sin(draw.theta)], [math.sin(draw.theta), math.cos(draw.theta)]])
    covariance = turn @ np.diag([draw.sigma_x**2, draw.sigma_y**2]) @ turn.T
    m = float(np.array([x, y]) @ np.linalg.inv(covariance) @ np.array([x, y]))
    if draw.family.startswith("plateau"):
        return 1 / (1 + m**draw.beta)
    return math.exp(-0.5 * m ** (draw.beta or 1.0))


@pytest.mark.parametrize("name", DRAWS)
def test_a_kernel_is_its_formula(name: str) -> None:
    made = kernels_of([DRAWS[name]])[0]
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made.numpy(), oracle(DRAWS[name]), atol=1e-7)


def test_kernels_are_the_same_alone_and_together() -> None:
    together = kernels_of([*DRAWS.values(), None])
    alone = torch.cat([kernels_of([draw]) for draw in [*DRAWS.values(), None]])
    assert torch.equal(together, alone)


def test_kernels_sum_to_one_and_are_symmetric_round_their_centre() -> None:
    kernels = kernels_of(list(DRAWS.values())).double()
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-6)
    assert torch.equal(kernels, kernels.flip(1, 2))
    line = torch.arange(21) - 10.0
    for axis in (1, 2):
        np.testing.assert_allclose((kernels.sum(3 - axis) * line).sum(1), 0, atol=1e-6)
    assert kernels[:6].min() >= 0
    assert kernels[6].min() < -0.001


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_the_second_moment_of_a_gaussian_is_its_variance(sigma: float) -> None:
    kernel = kernels_of([KernelDraw(family="gaussian", side_px=21, sigma_x=sigma, sigma_y=sigma)])[0].double()
    line = (torch.arange(21) - 10.0) ** 2
    assert float((kernel.sum(0) * line).sum()) == pytest.approx(sigma**2, rel=0.02)


def test_an_ellipse_is_long_in_the_direction_that_it_was_turned_to() -> None:
    kernel = kernels_of([KernelDraw(family="gaussian_aniso", side_px=21, sigma_x=2.5, sigma_y=1.0, theta=math.pi / 4)])[
        0
    ].double()
    line = torch.arange(21) - 10.0
    mixed = float((kernel * line[:, None] * line[None]).sum())
    assert mixed == pytest.approx((2.5**2 - 1) / 2, rel=0.02)


def test_a_sinc_lets_low_frequencies_pass_and_stops_high_ones() -> None:
    kernel = kernels_of([KernelDraw(family="sinc", side_px=21, cutoff=math.pi / 2)])[0].double().numpy()
    gain: Any = np.abs(np.fft.fft2(kernel, (64, 64)))
    assert gain[0, 1:9] == pytest.approx(1, abs=0.15)
    assert gain[0, 24:32].max() < 0.15


def test_without_a_draw_there_is_a_unit_impulse() -> None:
    impulse = torch.zeros(21, 21)
    impulse[10, 10] = 1
    assert torch.equal(kernels_of([None])[0], impulse)
    assert kernels_of([]).shape == (0, 21, 21)
