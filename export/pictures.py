"""Makes the pictures that exports are proven on, the same on every machine and of any size.

A photo, made pictures and noise. Made pictures are a little harder than photos: fp16 bodies of the released networks
lie 0.4 to 3.6 dB lower on them than on fourteen photos in the mean, and 4 to 8 dB above the worst of those, which noise
reaches with some networks (benchmarks/bench_precision.py).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PHOTO = Path(__file__).with_name("portrait.jpg")
"""The sample photo: a part of NASA's portrait of Eileen Collins, in the public domain (examples/make_portrait.py)."""

_LEAVES_PER_PX = 0.1
_SMALLEST_RADIUS_PX = 1.5
_GRAIN = 0.015


def photo(count: int, height_px: int, width_px: int, seed: int = 0) -> NDArray[np.float32]:
    """Return tiles of the sample photo, from places that the seed chooses; a photo too small goes on mirrored.

    Returns:
        (count, 3, height_px, width_px) float32 RGB, 8-bit levels in [0, 1].
    """
    from PIL import Image

    with Image.open(_PHOTO) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255
    bottom, right = max(0, height_px - pixels.shape[1]), max(0, width_px - pixels.shape[2])
    pixels = np.pad(pixels, ((0, 0), (0, bottom), (0, right)), mode="symmetric")
    rng = np.random.default_rng(seed)
    tops = rng.integers(0, pixels.shape[1] - height_px + 1, count)
    lefts = rng.integers(0, pixels.shape[2] - width_px + 1, count)
    return np.stack([pixels[:, y : y + height_px, x : x + width_px] for y, x in zip(tops, lefts, strict=True)])


def made_photo(count: int, height_px: int, width_px: int, seed: int = 0) -> NDArray[np.float32]:
    """Make pictures with the statistics of photos: discs of all sizes in front of one another, shaded, with grain.

    Radii follow the law r^-3, which makes edges and areas look alike at every scale. Source: Lee, Mumford, Huang,
    "Occlusion models for natural images", International Journal of Computer Vision 41, 2001.

    Returns:
        (count, 3, height_px, width_px) float32 RGB, 8-bit levels in [0, 1].
    """
    rng = np.random.default_rng(seed)
    return np.stack([_levels(_leaves(rng, height_px, width_px)) for _ in range(count)])


def noise(count: int, height_px: int, width_px: int, seed: int = 0) -> NDArray[np.float32]:
    """Return noise, every level as likely at every place: (count, 3, height_px, width_px) float32 RGB in [0, 1]."""
    levels = np.random.default_rng(seed).integers(0, 256, (count, 3, height_px, width_px))
    return (levels / 255).astype(np.float32)


def _leaves(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    picture = np.full((3, height, width), rng.random())
    largest = max(height, width) / 3 + _SMALLEST_RADIUS_PX
    for _ in range(int(height * width * _LEAVES_PER_PX) + 1):
        # The inverse of the distribution: 1 / r^2 is uniform.
        radius = rng.uniform(largest**-2.0, _SMALLEST_RADIUS_PX**-2.0) ** -0.5
        _add_leaf(rng, picture, radius, rng.uniform(0, height), rng.uniform(0, width))
    return picture + rng.normal(0, _GRAIN, picture.shape)


def _add_leaf(rng: np.random.Generator, picture: NDArray[np.float64], radius: float, y: float, x: float) -> None:
    top, left = max(0, int(y - radius - 1)), max(0, int(x - radius - 1))
    part = picture[:, top : int(y + radius + 2), left : int(x + radius + 2)]
    dy = np.arange(top, top + part.shape[1])[:, None] - y
    dx = np.arange(left, left + part.shape[2]) - x
    cover = np.clip(radius + 0.5 - np.hypot(dy, dx), 0, 1)  # an edge as soft as one pixel
    slope = rng.normal(0, 0.2, 2) / radius
    colour = rng.beta(0.8, 0.8) + rng.normal(0, 0.15, 3)
    part += cover * (colour[:, None, None] + slope[0] * dy + slope[1] * dx - part)


def _levels(picture: NDArray[np.float64]) -> NDArray[np.float32]:
    levels: NDArray[np.float32] = (np.rint(picture.clip(0, 1) * 255) / 255).astype(np.float32)
    return levels
