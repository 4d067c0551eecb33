"""Transparency: what the network sees where nothing is visible, and how the alpha channel itself is enlarged."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from realesr.rows import Band, RowWindow, in_chunks

BLEED_RADII_PX = (1, 2, 4, 8, 16, 32)
"""Windows that are searched for visible colour, from near to far. Farther away nothing reaches a visible pixel."""

FLAT_MARGIN = 2 / 255
"""Networks miss flat black and white by up to two levels; alpha is stretched by as much, so opaque stays opaque."""


def bleed_bands(bands: Iterable[Band], *, height_px: int) -> Iterator[Band]:
    """Give wholly transparent pixels the colour of the visible ones near them, so that no halo forms at edges.

    Args:
        bands: (colours + 1, rows, width) float32 in [0, 1], straight alpha last; height_px rows in all.
        height_px: height of the stream.

    Yields:
        (colours, rows, width) float32: colour only.
    """
    window = RowWindow(bands)
    reach = max(BLEED_RADII_PX)
    for start, stop in in_chunks(height_px):
        top, bottom = max(0, start - reach), min(height_px, stop + reach)
        rows = window.rows(top, bottom)
        yield bleed_colour(rows[:-1], rows[-1])[:, start - top : stop - top]


def bleed_colour(colour: Band, alpha: NDArray[np.float32]) -> Band:
    """Replace the colour where alpha is 0 by the mean, weighted with alpha, of the smallest window that sees any.

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
    """Summed-area tables with a row and a column of zeros before them."""
    table = planes.astype(np.float64).cumsum(axis=1).cumsum(axis=2)
    return np.pad(table, ((0, 0), (1, 0), (1, 0)))


def _window_sums(table: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Sums over (2 * radius + 1)^2 px round every pixel, clipped at the borders."""
    height, width = table.shape[1] - 1, table.shape[2] - 1
    y, x = np.arange(height), np.arange(width)
    top, bottom = np.maximum(y - radius, 0), np.minimum(y + radius + 1, height)
    left, right = np.maximum(x - radius, 0), np.minimum(x + radius + 1, width)
    down = table[:, bottom] - table[:, top]
    return down[:, :, right] - down[:, :, left]


def stretch_flat(alpha: Band) -> Band:
    """Undo what a network does to flat 0 and 1: the range [FLAT_MARGIN, 1 - FLAT_MARGIN] becomes [0, 1], clamped."""
    stretched: Band = (alpha - np.float32(FLAT_MARGIN)) / np.float32(1 - 2 * FLAT_MARGIN)
    return stretched.clip(0, 1)
