"""Pictures to prove an export on: made here, the same on every machine, of any size.

No photo is packed with the program: a made picture has every size and no licence. It is a little harder than photos:
fp16 bodies of the released networks lie 0.4 to 3.6 dB lower on it than on fourteen photos in the mean, and 4 to 8 dB
above the worst of those, which noise reaches with some networks (benchmarks/bench_precision.py).
"""

import numpy as np
from numpy.typing import NDArray

_LEAVES_PER_PX = 0.1
_SMALLEST_RADIUS_PX = 1.5
_GRAIN = 0.015


def photo(count: int, height_px: int, width_px: int, seed: int = 0) -> NDArray[np.float32]:
    """Pictures with the statistics of photos: discs of all sizes in front of one another, shaded, with grain.

    Radii follow the law r^-3, which makes edges and areas look alike at every scale. Source: Lee, Mumford, Huang,
    "Occlusion models for natural images", International Journal of Computer Vision 41, 2001.

    Returns:
        (count, 3, height_px, width_px) float32 RGB, 8-bit levels in [0, 1].
    """
    rng = np.random.default_rng(seed)
    return np.stack([_levels(_leaves(rng, height_px, width_px)) for _ in range(count)])


def noise(count: int, height_px: int, width_px: int, seed: int = 0) -> NDArray[np.float32]:
    """Every level as likely at every place: (count, 3, height_px, width_px) float32 RGB in [0, 1]."""
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
