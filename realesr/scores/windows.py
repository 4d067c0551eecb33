"""Computes local means under a Gaussian window, which SSIM and NIQE are made of."""

import numpy as np
from numpy.typing import NDArray


def gaussian_means(plane: NDArray[np.float64], *, radius_px: int, sigma_px: float) -> NDArray[np.float64]:
    """Return the means of a plane under a square Gaussian window, where the whole window lies inside.

    Args:
        plane: (H, W), at least 2 * radius_px + 1 a side.
        radius_px: of the window, which has 2 * radius_px + 1 samples a side.
        sigma_px: standard deviation of the Gaussian, which is cut at the window's edge and sums up to 1.

    Returns:
        (H - 2 * radius_px, W - 2 * radius_px).
    """
    offsets = np.arange(-radius_px, radius_px + 1)
    window = np.exp(-(offsets**2) / (2 * sigma_px**2))
    window /= window.sum()
    height, width = (side - 2 * radius_px for side in plane.shape)
    down = weighted_sum(window, [plane[at : at + height] for at in range(len(window))])
    return weighted_sum(window, [down[:, at : at + width] for at in range(len(window))])


def weighted_sum(weights: NDArray[np.float64], parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the sum of equally large parts, each times its weight."""
    total: NDArray[np.float64] = weights[0] * parts[0]
    product = np.empty_like(total)
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total += np.multiply(weight, part, out=product)
    return total
