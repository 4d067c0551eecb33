"""Computes NIQE, which scores an image without a reference: how far its statistics are from those of clean photos.

Source: A. Mittal, R. Soundararajan and A. C. Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal
Processing Letters 20(3), 2013. Where the paper leaves a choice open, this module does as the authors' MATLAB release
and BasicSR's `calculate_niqe` do: on Y of BT.601, rounded to whole levels; patches of 96 x 96 px without overlap, what
is left at the right and at the bottom is not scored; two scales, the second one half the size by MATLAB's imresize.

luma -> plane at two scales -> MSCN coefficients -> AGGD fits: 36 features a patch -> Gaussian -> distance

`niqe_pristine.npz` has the Gaussian of clean photos that the authors fitted (modelparameters.mat of their release):
`mean` (36,) and `covariance` (36, 36), float64.
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError
from realesr.scores.luma import rounded_luma
from realesr.scores.windows import gaussian_means, weighted_sum

Plane = NDArray[np.uint8] | NDArray[np.float32]
"""(H, W), levels of 255."""
Floats = NDArray[np.float64]

PATCH_PX = 96
"""Side of a patch at the first scale: that of the authors' release, to which the Gaussian of clean photos belongs."""
LEAST_PATCHES = 2
"""Patches down and across: the covariance of fewer than four says next to nothing."""

_WINDOW_RADIUS_PX, _WINDOW_SIGMA_PX = 3, 7 / 6
"""Gaussian window of the local mean and deviation. Source: the paper, section II.A, and its release."""
_HALVING_DISTANCES_PX = np.array([3.5, 2.5, 1.5, 0.5, 0.5, 1.5, 2.5, 3.5])
"""Distances of the eight samples from which one of half the resolution is made."""
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Steps down and across to the neighbour that a coefficient is multiplied with. Source: the paper, equation 6."""


def niqe(image: NDArray[np.uint8]) -> float:
    """Return the Natural Image Quality Evaluator's score of an image: the lower, the more like clean photos.

    Args:
        image: (H, W, 3) RGB or (H, W) grey, uint8, sRGB; at least 192 px a side. Grey counts as RGB of three equal
            channels.

    Returns:
        The score. Photos mostly have 2 to 6; it has no upper limit.

    Raises:
        InputError: it has another shape or type, fewer than two patches down or across, or fewer than two patches
            with any texture.
    """
    y = _whole_patches(rounded_luma(image))
    features = np.hstack((_plane_features(y, PATCH_PX), _plane_features(_halved(y), PATCH_PX // 2)))
    textured = features[~np.isnan(features).any(axis=1)]
    if len(textured) < 2:
        raise InputError(
            f"got an image with texture in {len(textured)} of {len(features)} patches of {PATCH_PX} x {PATCH_PX} px, "
            "expected at least 2: NIQE cannot score flat images"
        )
    return _distance(np.nanmean(features, axis=0), np.cov(textured, rowvar=False))


def _whole_patches(y: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the part of a plane that whole patches cover."""
    height, width = (side // PATCH_PX * PATCH_PX for side in y.shape)
    if min(height, width) < LEAST_PATCHES * PATCH_PX:
        raise InputError(
            f"got an image of {y.shape[1]} x {y.shape[0]} px, expected at least {LEAST_PATCHES * PATCH_PX} px a side: "
            f"NIQE needs {LEAST_PATCHES} patches of {PATCH_PX} px each way"
        )
    return y[:height, :width]


def _halved(y: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the plane at half its size, as MATLAB's imresize(y, 0.5) does: bicubic, antialiased, mirrored at edges.

    The kernel is that of R. Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -1/2,
    stretched by the factor, so that it is a low-pass filter, too.
    """
    height, width = y.shape
    distances = _HALVING_DISTANCES_PX / 2
    weights = np.where(
        distances <= 1,
        1.5 * distances**3 - 2.5 * distances**2 + 1,
        -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2,
    )
    weights /= weights.sum()
    padded = np.pad(y, 3, mode="symmetric")
    halved = np.empty((height // 2, width // 2), np.float32)
    for top in range(0, height, PATCH_PX):
        rows = padded[top : top + PATCH_PX + 6].astype(np.float64)
        down = weighted_sum(weights, [rows[at : at + PATCH_PX : 2] for at in range(len(weights))])
        across = weighted_sum(weights, [down[:, at : at + width : 2] for at in range(len(weights))])
        halved[top // 2 : (top + PATCH_PX) // 2] = across
    return halved


def _plane_features(plane: Plane, patch_px: int) -> Floats:
    """Return the features (patches, 18) of a plane of whole patches; NaN where a patch is flat."""
    padded = np.pad(plane, _WINDOW_RADIUS_PX, mode="edge")
    bands = (padded[top : top + patch_px + 2 * _WINDOW_RADIUS_PX] for top in range(0, len(plane), patch_px))
    return np.vstack([_band_features(band.astype(np.float64), patch_px) for band in bands])


def _band_features(band: Floats, patch_px: int) -> Floats:
    """Return the features (patches, 18) of patches side by side, whose band has the window's radius around them."""
    coefficients = _mscn(band)
    patches = coefficients.reshape(patch_px, -1, patch_px).swapaxes(0, 1).copy()
    alpha, _, left, right = _aggd(patches)
    features = [alpha, (left + right) / 2]
    for step in _NEIGHBOURS:
        features += _aggd(patches * np.roll(patches, step, axis=(1, 2)))
    return np.stack(features, axis=1)


def _mscn(band: Floats) -> Floats:
    """Return mean-subtracted contrast-normalised coefficients, without the band's margin. Source: equation 1."""
    radius = _WINDOW_RADIUS_PX
    mean = _windowed(band)
    deviation = np.sqrt(np.abs(_windowed(band * band) - mean * mean))
    # Rounded, the mean of a flat area is exactly its level; else the fits would take the error left there for texture.
    coefficients: Floats = (band[radius:-radius, radius:-radius] - mean.astype(np.float32)) / (deviation + 1)
    return coefficients


def _windowed(band: Floats) -> Floats:
    """Return the means under the Gaussian window, where it lies inside."""
    return gaussian_means(band, radius_px=_WINDOW_RADIUS_PX, sigma_px=_WINDOW_SIGMA_PX)


def _aggd(patches: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Fit an asymmetric generalised Gaussian distribution to the values of each patch, by moments.

    Source: the paper, equations 4 to 8; N. Lasmar, Y. Stitou and Y. Berthoumieu, "Multiscale skewed heavy tailed model
    for texture analysis", ICIP 2009.

    Args:
        patches: (patches, H, W).

    Returns:
        Shape, mean, and scales to the left and to the right, (patches,) each. The shape is one of 0.2, 0.201, ... 10;
        the others are NaN where a patch has no values of one sign.
    """
    values = patches.reshape(len(patches), -1)
    below, above = np.minimum(values, 0), np.maximum(values, 0)
    squares_below, squares_above = (np.einsum("ij,ij->i", side, side) for side in (below, above))
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (
            np.sqrt(squares_below / np.count_nonzero(below, axis=1)),
            np.sqrt(squares_above / np.count_nonzero(above, axis=1)),
        )
        ratio = left / right
        mean_size = (above.sum(axis=1) - below.sum(axis=1)) / values.shape[1]
        moments = mean_size**2 / ((squares_below + squares_above) / values.shape[1])
        moments *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes = _shapes()
    at = np.where(np.isnan(moments), 0, np.searchsorted(shapes.moments_between, moments))
    scale = shapes.deviation_to_scale[at]
    left, right = left * scale, right * scale
    return shapes.alpha[at], (right - left) * shapes.scale_to_mean[at], left, right


class _Shapes(NamedTuple):
    """The shapes that are tried, and what follows from each, (9801,) each."""

    alpha: Floats
    moments_between: Floats
    """The ratio of moments half-way between one shape's and the next one's; it rises with the shape. (9800,)"""
    deviation_to_scale: Floats
    scale_to_mean: Floats


@functools.cache
def _shapes() -> _Shapes:
    """Return the table of shapes. Source: the paper, equations 5, 7 and 8, and its release for the steps."""
    alpha = np.arange(200, 10_001) / 1000
    once, twice, thrice = (np.array([math.gamma(times / each) for each in alpha.tolist()]) for times in (1, 2, 3))
    moments = twice**2 / (once * thrice)
    return _Shapes(alpha, (moments[1:] + moments[:-1]) / 2, np.sqrt(once / thrice), twice / once)


@functools.cache
def _pristine() -> tuple[Floats, Floats]:
    """Return the mean (36,) and covariance (36, 36) of the features of clean photos."""
    with np.load(Path(__file__).with_name("niqe_pristine.npz")) as file:
        return file["mean"], file["covariance"]


def _distance(mean: Floats, covariance: Floats) -> float:
    """Return how far the features of an image are from those of clean photos. Source: the paper, equation 10."""
    clean_mean, clean_covariance = _pristine()
    difference = clean_mean - mean
    inverse = np.linalg.pinv((clean_covariance + covariance) / 2)
    return math.sqrt(difference @ inverse @ difference)
