"""Makes blur kernels from what was drawn for them, all of a batch at once.

They are made on the CPU in float64, so that every device filters with the same numbers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from realesr.train.degrade.degradation import KernelDraw, MotionDraw, OversharpenDraw
from realesr.train.degrade.recipe import MAX_KERNEL_PX

_PARTS_OF_A_PATH = 128
"""Parts of a path of motion: six a pixel where it is longest."""


def kernels_of(draws: Sequence[KernelDraw | None]) -> Tensor:
    """Make the kernels of a batch.

    With m = (x, y) C^-1 (x, y)^T and C = R(theta) diag(sigma_x^2, sigma_y^2) R(theta)^T: a Gaussian is exp(-m / 2), a
    generalised one exp(-m^beta / 2), a plateau 1 / (1 + m^beta), a sinc the circular low-pass of `_sinc`.
    Source: Real-ESRGAN (Wang et al. 2021), 3.1 and 3.3; basicsr/data/degradations.py.

    Args:
        draws: one a kernel; None is the unit impulse, which changes nothing.

    Returns:
        (N, 21, 21) float32 on the CPU, each with the sum 1, zero beyond its own side.
    """
    if not draws:
        return torch.empty(0, MAX_KERNEL_PX, MAX_KERNEL_PX)
    x, y = _grid()
    families = [None if draw is None else draw.family.removesuffix("_aniso") for draw in draws]
    m = _mahalanobis(draws, x, y)
    beta = _column([1.0 if draw is None else draw.beta or 1.0 for draw in draws])
    values = torch.where(
        _column_of_flags([family == "plateau" for family in families]),
        1 / (1 + m**beta),
        torch.exp(-(m**beta) / 2),
    )
    values = torch.where(_column_of_flags([family == "sinc" for family in families]), _sinc(draws, x, y), values)
    half = _column([0.0 if draw is None else float(draw.side_px // 2) for draw in draws])
    values = torch.where((x.abs() <= half) & (y.abs() <= half), values, 0.0)
    return (values / values.sum((1, 2), keepdim=True)).float()


def motion_kernels(draws: Sequence[MotionDraw | None]) -> Tensor:
    """Make the kernels of even motion along a line.

    A kernel is the path's integral of a bilinear pixel, 1 / length times the integral of tri(x - t cos a) tri(y - t sin
    a) over t from -length / 2 to length / 2, by the midpoint rule. Source: uniform linear motion, Gonzalez and Woods,
    Digital Image Processing, section 5.6; the bilinear pixel is what makes any length and angle possible.

    Args:
        draws: one a kernel; None is the unit impulse, which changes nothing.

    Returns:
        (N, 21, 21) float32 on the CPU, each with the sum 1.
    """
    x, y = _grid()
    length = torch.tensor([0.0 if draw is None else draw.length_px for draw in draws], dtype=torch.float64)
    angle = _column([0.0 if draw is None else draw.angle for draw in draws])
    values = torch.zeros(len(draws), MAX_KERNEL_PX, MAX_KERNEL_PX, dtype=torch.float64)
    for part in range(_PARTS_OF_A_PATH):
        t = length[:, None, None] * ((part + 0.5) / _PARTS_OF_A_PATH - 0.5)
        values += _triangle(x - t * torch.cos(angle)) * _triangle(y - t * torch.sin(angle))
    return (values / values.sum((1, 2), keepdim=True)).float()


def unsharp_kernels(draws: Sequence[OversharpenDraw | None]) -> Tensor:
    """Make the kernels of unsharp masks, (1 + amount) times the impulse less amount times a Gaussian.

    Args:
        draws: one a kernel; None is the unit impulse, which changes nothing.

    Returns:
        (N, 21, 21) float32 on the CPU, each with the sum 1.
    """
    x, y = _grid()
    amount = _column([0.0 if draw is None else draw.amount for draw in draws])
    sigma = _column([1.0 if draw is None else draw.sigma_px for draw in draws])
    gaussian = torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    impulse = ((x == 0) & (y == 0)).double()
    return ((1 + amount) * impulse - amount * gaussian / gaussian.sum((1, 2), keepdim=True)).float()


def _triangle(distance: Tensor) -> Tensor:
    """Return the weight of a bilinear pixel at this distance from its centre, in px."""
    return (1 - distance.abs()).clamp(min=0)


def _grid() -> tuple[Tensor, Tensor]:
    """Return coordinates x (along columns) and y (along rows) of the canvas, centred at 0."""
    line = torch.arange(MAX_KERNEL_PX, dtype=torch.float64) - MAX_KERNEL_PX // 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def _mahalanobis(draws: Sequence[KernelDraw | None], x: Tensor, y: Tensor) -> Tensor:
    """Return (N, 21, 21) squared distances in standard deviations along the axes of each ellipse."""
    sigma_x = _column([1.0 if draw is None else draw.sigma_x or 1.0 for draw in draws])
    sigma_y = _column([1.0 if draw is None else draw.sigma_y or 1.0 for draw in draws])
    theta = _column([0.0 if draw is None else draw.theta for draw in draws])
    along = x * torch.cos(theta) + y * torch.sin(theta)
    across = y * torch.cos(theta) - x * torch.sin(theta)
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _sinc(draws: Sequence[KernelDraw | None], x: Tensor, y: Tensor) -> Tensor:
    """Return (N, 21, 21) values cutoff * J1(cutoff * r) / (2 pi r), cutoff^2 / (4 pi) at the centre."""
    cutoff = _column([0.0 if draw is None else draw.cutoff for draw in draws])
    r = torch.sqrt(x**2 + y**2)
    away = torch.where(r == 0, 1.0, r)
    ring = cutoff * torch.special.bessel_j1(cutoff * away) / (2 * math.pi * away)
    return torch.where(r == 0, cutoff**2 / (4 * math.pi), ring)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def _column_of_flags(values: Sequence[bool]) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)[:, None, None]
