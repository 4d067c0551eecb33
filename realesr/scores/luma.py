"""Computes Y, the luma on which papers on super-resolution report PSNR and SSIM, and on which NIQE is computed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError

_WEIGHTS = (65.481, 128.553, 24.966)
_OFFSET = 16.0
"""Y of ITU-R BT.601 in the form of MATLAB's rgb2ycbcr: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255."""

_ROWS_AT_ONCE = 256


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return Y of an image, without rounding it.

    Args:
        image: (H, W, 3) RGB or (H, W) grey, uint8. Grey counts as RGB of three equal channels.

    Returns:
        (H, W) float64 in [16, 235].

    Raises:
        InputError: it has another shape or type, or no pixels.
    """
    check_image(image)
    if image.ndim == 2:
        return _OFFSET + image.astype(np.float64) * (sum(_WEIGHTS) / 255)
    y: NDArray[np.float64] = _OFFSET + image @ (np.array(_WEIGHTS) / 255)
    return y


def rounded_luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return Y of an image rounded to whole levels, as MATLAB's rgb2ycbcr does for uint8.

    Args:
        image: see `luma`.

    Returns:
        (H, W) uint8, 16 to 235.

    Raises:
        InputError: it has another shape or type, or no pixels.
    """
    check_image(image)
    y = np.empty(image.shape[:2], np.uint8)
    for top in range(0, len(y), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        y[rows] = np.rint(luma(image[rows]))
    return y


def check_image(image: NDArray[Any]) -> None:
    """Raise InputError where an image is not (H, W, 3) or (H, W) of uint8, or has no pixels."""
    is_rgb = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (is_rgb or image.ndim == 2) or 0 in image.shape:
        raise InputError(
            f"got an image of shape {image.shape} and type {image.dtype}, expected (height, width, 3) or "
            "(height, width) of uint8: convert it to 8 bit, without alpha"
        )
