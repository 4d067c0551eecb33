"""Finds the part of a photo that tells networks apart best: where it has most detail, not most noise.

The measure is Q of X. Zhu and P. Milanfar, "Automatic Parameter Selection for Denoising Algorithms Using a
No-Reference Measure of Image Content", IEEE Transactions on Image Processing 19(12), 2010. In a patch, edges and
strands let the gradients point one way, and noise lets them point everywhere: with the singular values s1 >= s2 of the
patch's gradients, Q = s1 * (s1 - s2) / (s1 + s2). Patches that white noise alone could explain count as 0.

Patches are 8 x 8 px of the photo at half its size: noise weighs less there, and nothing of a photo's edges is lost.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from realesr.images.crop import Region
from realesr.images.reader import ImageReader

REGION_PX = 256
"""Side of the region that is chosen."""

_PATCH_PX = 8
"""Side of a patch, in pixels of the halved photo."""
_CELL_PX = 2 * _PATCH_PX
"""The same in pixels of the photo: regions begin at multiples of it."""
_FALSE_ALARMS = 0.001
"""Share of patches of white noise that count as detail. Source: the paper."""
_ROWS_AT_ONCE = 16 * _CELL_PX
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue. Source: ITU-R BT.601."""

Floats = NDArray[np.float32]


def most_detailed_region(reader: ImageReader, side_px: int = REGION_PX) -> Region:
    """Return the square of `side_px` with the most detail; of a photo that is narrower or lower, all of that side.

    Reads the image to its end, in bounded memory. Of several equal ones, as in a flat photo, the middle one is taken.

    Args:
        reader: the photo, of which no row has been read.
        side_px: side of the region, 16 or more.

    Raises:
        InputError: rows are missing from the file or damaged.
    """
    width, height = reader.info.width_px, reader.info.height_px
    region_width, region_height = min(side_px, width), min(side_px, height)
    cells = np.concatenate([patch_detail(_halved(luma)) for luma in _luma_bands(reader)])
    window = (max(1, region_height // _CELL_PX), max(1, region_width // _CELL_PX))
    row, column = _best(np.lib.stride_tricks.sliding_window_view(cells, window).sum(axis=(2, 3)))
    return Region(
        min(column * _CELL_PX, width - region_width),
        min(row * _CELL_PX, height - region_height),
        region_width,
        region_height,
    )


def _luma_bands(reader: ImageReader) -> Iterator[Floats]:
    """Yield the photo's luma in bands (rows, width), 0 to 255, whose sides are filled up to whole cells.

    What is transparent counts as black, whatever colour the file gives it.
    """
    info = reader.info
    top = 255 if info.bits == 8 else 65535
    while len(rows := reader.read_rows(_ROWS_AT_ONCE)):
        colour = rows[:, :, : info.channels - info.has_alpha].astype(np.float32)
        luma = (colour[:, :, 0] if info.is_grey else colour @ _LUMA) * np.float32(255 / top)
        if info.has_alpha:
            luma *= rows[:, :, -1] / np.float32(top)
        yield np.pad(luma, [(0, -side % _CELL_PX) for side in luma.shape], mode="edge")


def _halved(luma: Floats) -> Floats:
    """Return the mean of each 2 x 2 px of a plane of even sides."""
    height, width = luma.shape
    halved: Floats = luma.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return halved


def patch_detail(luma: Floats) -> Floats:
    """Return Q of each whole patch of 8 x 8 px; 0 where white noise alone could explain it.

    Args:
        luma: (H, W), 0 to 255.

    Returns:
        (H // 8, W // 8), 0 or more.
    """
    across, down = np.gradient(luma, axis=1), np.gradient(luma, axis=0)
    xx, yy, xy = (_patch_sums(product) for product in (across * across, down * down, across * down))
    spread = np.sqrt((xx - yy) ** 2 + 4 * xy**2)  # eigenvalues of [[xx, xy], [xy, yy]]: squares of s1 and s2
    s1 = np.sqrt((xx + yy + spread) / 2)
    s2 = np.sqrt(np.maximum(xx + yy - spread, 0) / 2)
    coherence = (s1 - s2) / np.maximum(s1 + s2, np.finfo(np.float32).tiny)
    return np.where(coherence > _noise_coherence(), s1 * coherence, 0).astype(np.float32)


def _noise_coherence() -> float:
    """Return the coherence that white noise exceeds in one patch of a thousand. Source: the paper."""
    power = _FALSE_ALARMS ** (1 / (_PATCH_PX**2 - 1))
    return float(np.sqrt((1 - power) / (1 + power)))


def _patch_sums(plane: Floats) -> Floats:
    """Return the sum of each whole patch of a plane."""
    rows, columns = (side // _PATCH_PX for side in plane.shape)
    whole = plane[: rows * _PATCH_PX, : columns * _PATCH_PX]
    sums: Floats = whole.reshape(rows, _PATCH_PX, columns, _PATCH_PX).sum(axis=(1, 3))
    return sums


def _best(sums: Floats) -> tuple[int, int]:
    """Return row and column of the largest sum; of several equal ones, of the one nearest to the middle."""
    places = np.argwhere(sums == sums.max())
    middle = (np.array(sums.shape) - 1) / 2
    row, column = places[np.square(places - middle).sum(axis=1).argmin()]
    return int(row), int(column)
