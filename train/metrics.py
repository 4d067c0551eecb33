"""Scores images in float64: PSNR, SSIM, and the drift of colours."""

import torch
from torch import Tensor
from torch.nn import functional

from realesr.errors import InputError

_SSIM_SIGMA_PX, _SSIM_RADIUS_PX = 1.5, 5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
"""Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", section III.B."""

SSIM_LEAST_PX = 2 * _SSIM_RADIUS_PX + 1
"""Least side of an image for SSIM, without the border: that of its window."""

DRIFT_PX = 32
"""Side of the squares whose mean colours are compared. An assumption: larger than texture, smaller than things."""


def psnr(images: Tensor, truth: Tensor, *, border_px: int = 0, luma: bool = False) -> Tensor:
    """Return the peak signal-to-noise ratio of each image.

    Args:
        images: (N, 3, H, W) RGB in [0, 1].
        truth: likewise.
        border_px: left out at each side.
        luma: on Y of BT.601 in MATLAB's form (16 to 235), as papers have it, and not on RGB.

    Returns:
        (N,) float64, in dB; infinite where both are equal.

    Raises:
        InputError: nothing is left without the border.
    """
    a, b = (_prepared(each, border_px, luma, least_px=1) for each in (images, truth))
    return -10 * ((a - b) ** 2).mean(dim=(1, 2, 3)).log10()


def ssim(images: Tensor, truth: Tensor, *, border_px: int = 0, luma: bool = False) -> Tensor:
    """Return the structural similarity of each image, the mean over its channels.

    It is scikit-image's `structural_similarity` with gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1 and channel_axis: the window has 11 px, and what it does not fit into is left out.

    Args:
        images: (N, 3, H, W) RGB in [0, 1], at least 11 px a side without the border.
        truth: likewise.
        border_px: left out at each side.
        luma: see `psnr`.

    Returns:
        (N,) float64, 1 where both are equal.

    Raises:
        InputError: less than the window is left without the border.
    """
    a, b = (_prepared(each, border_px, luma, least_px=SSIM_LEAST_PX) for each in (images, truth))
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a, var_b = _windowed(a * a) - mean_a**2, _windowed(b * b) - mean_b**2
    both = _windowed(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + _SSIM_C1) * (2 * both + _SSIM_C2)
    bottom = (mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2)
    return (top / bottom).mean(dim=(1, 2, 3))


def colour_drift(images: Tensor, inputs: Tensor) -> Tensor:
    """Return how much the mean colours of squares of DRIFT_PX differ from those of the input.

    Not from the truth: what the degradation did to colours is no fault of the network.

    Args:
        images: (N, 3, H, W) RGB in [0, 1].
        inputs: (N, 3, h, w) likewise, of any size.

    Returns:
        Mean absolute difference of the squares' means over all images and channels, float64, in levels of 255.
    """
    rows, columns = (max(1, side // DRIFT_PX) for side in images.shape[2:])
    small = (functional.adaptive_avg_pool2d(each.double(), (rows, columns)) for each in (images, inputs))
    a, b = small
    return (a - b).abs().mean() * 255


def _prepared(images: Tensor, border_px: int, luma: bool, *, least_px: int) -> Tensor:
    height, width = images.shape[2:]
    least_px += 2 * border_px
    if min(height, width) < least_px:
        raise InputError(f"got an image of {width} x {height} px to score, expected at least {least_px} px a side")
    inner = images[:, :, border_px : height - border_px, border_px : width - border_px].double()
    if not luma:
        return inner
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=inner.device)
    return (torch.einsum("nchw,c->nhw", inner, weights)[:, None] + 16) / 255


def _windowed(images: Tensor) -> Tensor:
    """Return Gaussian means, where the whole window lies inside."""
    at = torch.arange(-_SSIM_RADIUS_PX, _SSIM_RADIUS_PX + 1, dtype=torch.float64, device=images.device)
    window = torch.exp(-(at**2) / (2 * _SSIM_SIGMA_PX**2))
    window /= window.sum()
    channels = images.shape[1]
    down = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    images = functional.conv2d(images, down, groups=channels)
    return functional.conv2d(images, down.transpose(2, 3), groups=channels)
