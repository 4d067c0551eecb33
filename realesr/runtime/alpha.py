"""Prepares transparent images for the network, and bounds the enlarged alpha channel by the source's."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from realesr.runtime.rows import Band, RowWindow, in_chunks

BLEED_RADII_PX = (1, 2, 4, 8, 16, 32)
"""Windows that are searched for visible colour, from small to large. Colour beyond them affects no visible pixel."""


def bleed_bands(bands: Iterable[Band], *, height_px: int) -> Iterator[Band]:
    """Give fully transparent pixels the colour of visible ones near them, so that no halo forms at edges.

    Args:
        bands: (colours + 1, rows, width) float32 in [0, 1], straight alpha last; height_px rows in all.
        height_px: height of the image.

    Yields:
        (colours, rows, width) float32 in [0, 1]: colour only.
    """
    window = RowWindow(bands)
    reach = max(BLEED_RADII_PX)
    for start, stop in in_chunks(height_px):
        top, bottom = max(0, start - reach), min(height_px, stop + reach)
        rows = window.rows(top, bottom)
        yield bleed_colour(rows[:-1], rows[-1])[:, start - top : stop - top]


def bleed_colour(colour: Band, alpha: NDArray[np.float32]) -> Band:
    """Replace colour where alpha is 0 by the alpha-weighted mean of the smallest window with visible pixels.

    Args:
        colour: (colours, height, width) float32.
        alpha: (height, width) float32 in [0, 1].

    Returns:
        (colours, height, width) float32; pixels with alpha > 0 unchanged.
    """
    empty = alpha == 0
    if not empty.any() or empty.all():
        return colour
    filled = colour.copy()
    sums = _summed_area(np.concatenate([colour * alpha, alpha[None]]))
    for radius in BLEED_RADII_PX:
        totals = _window_sums(sums, radius)
        found = empty & (totals[-1] > 1e-3)
        filled[:, found] = (totals[:-1, found] / totals[-1, found]).astype(np.float32)
        empty &= ~found
    return filled


def _summed_area(planes: Band) -> NDArray[np.float64]:
    """Return summed-area tables with a row and a column of zeros before them."""
    table = planes.astype(np.float64).cumsum(axis=1).cumsum(axis=2)
    return np.pad(table, ((0, 0), (1, 0), (1, 0)))


def _window_sums(table: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Return the sums over (2 * radius + 1)^2 px around every pixel, clipped at the borders."""
    height, width = table.shape[1] - 1, table.shape[2] - 1
    y, x = np.arange(height), np.arange(width)
    top, bottom = np.maximum(y - radius, 0), np.minimum(y + radius + 1, height)
    left, right = np.maximum(x - radius, 0), np.minimum(x + radius + 1, width)
    down = table[:, bottom] - table[:, top]
    return down[:, :, right] - down[:, :, left]


def limit_bands(
    enlarged: Iterable[Band], alpha: Iterable[Band], *, size: tuple[int, int], to_size: tuple[int, int]
) -> Iterator[Band]:
    """Clamp enlarged alpha to the range of the source's 3 x 3 px around each pixel, so that opaque stays opaque.

    Otherwise a network turns a constant 1 into about 0.99 (x4plus: off by 2 levels inside, 8 in the image's corners).

    Args:
        enlarged: (1, rows, to width) float32, to_size[0] rows in all.
        alpha: (1, rows, width) float32, size[0] rows in all.
        size: height and width of the source in px.
        to_size: height and width of the enlarged image in px.

    Yields:
        (1, rows, to width) float32, to_size[0] rows in all.
    """
    (height, width), (to_height, to_width) = size, to_size
    source, result = RowWindow(alpha), RowWindow(enlarged)
    x = _nearest(0, to_width, width, to_width)
    for start, stop in in_chunks(to_height):
        y = _nearest(start, stop, height, to_height)
        top, bottom = max(0, int(y[0]) - 1), min(height, int(y[-1]) + 2)
        low, high = _local_range(source.rows(top, bottom)[0])
        at = np.ix_(y - top, x)
        yield np.clip(result.rows(start, stop), low[at], high[at])


def _nearest(start: int, stop: int, length: int, to_length: int) -> NDArray[np.intp]:
    """Return the index of the source pixel under each output pixel of [start, stop)."""
    return ((np.arange(start, stop) + 0.5) * length / to_length).astype(np.intp)


def _local_range(alpha: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the smallest and the largest value of the 3 x 3 px around each pixel, clipped at the borders."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(alpha, 1, mode="edge"), (3, 3))
    return windows.min(axis=(2, 3)), windows.max(axis=(2, 3))
