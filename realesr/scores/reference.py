"""Compares an image with its reference on Y: PSNR and SSIM, as papers on super-resolution report them."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.scores.luma import check_image, luma
from realesr.scores.windows import gaussian_means

BORDER_PX = 4
"""Left out at each side by default: papers leave out as many pixels as the factor, and the usual factor is 4."""

_SSIM_SIGMA_PX, _SSIM_RADIUS_PX = 1.5, 5
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13(4), 2004, section III.B."""

_ROWS_AT_ONCE = 32
"""As many as stay in the cache of the processor with all that SSIM makes of them."""

Image = NDArray[np.uint8]
"""(H, W, 3) RGB or (H, W) grey, sRGB."""
Floats = NDArray[np.float64]


def psnr_y(image: Image, reference: Image, *, border_px: int = BORDER_PX) -> float:
    """Return the peak signal-to-noise ratio of an image on Y, for a peak of 255.

    Y is not rounded, as in BasicSR; MATLAB's rgb2ycbcr rounds it for uint8, which takes about 0.04 dB off 35 dB.

    Args:
        image: (H, W, 3) RGB or (H, W) grey, uint8. Grey counts as RGB of three equal channels.
        reference: likewise, of the same size.
        border_px: left out at each side.

    Returns:
        In dB; infinite where both are equal.

    Raises:
        InputError: the sizes differ, it has another shape or type, or nothing is left without the border.
    """
    a, b = _without_border(image, reference, border_px, least_px=1)
    error = sum(float(np.sum((luma(a[rows]) - luma(b[rows])) ** 2)) for rows in _bands(len(a)))
    mean = error / (a.shape[0] * a.shape[1])
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)


def ssim_y(image: Image, reference: Image, *, border_px: int = BORDER_PX) -> float:
    """Return the structural similarity of an image on Y: the mean of Wang's index, with his Gaussian window.

    It is scikit-image's `structural_similarity` with gaussian_weights=True, sigma=1.5, use_sample_covariance=False and
    data_range=255: the window has 11 px, and what it does not fit into is left out.

    Args:
        image: see `psnr_y`; at least 11 px a side without the border.
        reference: likewise, of the same size.
        border_px: left out at each side.

    Returns:
        1 where both are equal, less elsewhere; about 0 for unlike images.

    Raises:
        InputError: the sizes differ, it has another shape or type, or less than the window is left without the border.
    """
    a, b = _without_border(image, reference, border_px, least_px=2 * _SSIM_RADIUS_PX + 1)
    total = 0.0
    for rows in _bands(len(a) - 2 * _SSIM_RADIUS_PX):
        with_margin = slice(rows.start, rows.stop + 2 * _SSIM_RADIUS_PX)
        total += float(np.sum(_similarity(luma(a[with_margin]), luma(b[with_margin]))))
    positions = (a.shape[0] - 2 * _SSIM_RADIUS_PX) * (a.shape[1] - 2 * _SSIM_RADIUS_PX)
    return float(total / positions)


def check_same_size(image: NDArray[Any], reference: NDArray[Any]) -> None:
    """Raise InputError where an image and its reference differ in size."""
    if image.shape[:2] != reference.shape[:2]:
        (height, width), (reference_height, reference_width) = image.shape[:2], reference.shape[:2]
        raise InputError(
            f"got an image of {width} x {height} px and a reference of {reference_width} x {reference_height} px, "
            "expected one size: crop or resize one of them"
        )


def _without_border(image: Image, reference: Image, border_px: int, *, least_px: int) -> tuple[Image, Image]:
    """Return both images without their border, of which at least `least_px` a side must be left."""
    for each in (image, reference):
        check_image(each)
    check_same_size(image, reference)
    height, width = image.shape[:2]
    if min(height, width) < least_px + 2 * border_px:
        raise InputError(
            f"got an image of {width} x {height} px, expected at least {least_px + 2 * border_px} px a side "
            f"with a border of {border_px} px left out"
        )
    inner = np.s_[border_px : height - border_px, border_px : width - border_px]
    return image[inner], reference[inner]


def _bands(rows: int) -> list[slice]:
    """Return slices of a number of rows, one after another."""
    return [slice(top, min(top + _ROWS_AT_ONCE, rows)) for top in range(0, rows, _ROWS_AT_ONCE)]


def _similarity(a: Floats, b: Floats) -> Floats:
    """Return the index of each pixel that the whole window fits around. Source: Wang et al. 2004, equation 13."""
    mean_a, mean_b = _windowed(a), _windowed(b)
    variance_a, variance_b = _windowed(a * a) - mean_a**2, _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    bottom = (mean_a**2 + mean_b**2 + _SSIM_C1) * (variance_a + variance_b + _SSIM_C2)
    index: Floats = top / bottom
    return index


def _windowed(plane: Floats) -> Floats:
    """Return the means under the Gaussian window, where it lies inside."""
    return gaussian_means(plane, radius_px=_SSIM_RADIUS_PX, sigma_px=_SSIM_SIGMA_PX)
