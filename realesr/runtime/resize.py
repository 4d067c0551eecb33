"""Resamples a stream of bands with Lanczos-3, in float32 and in bounded memory."""

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from realesr.runtime.rows import Band, RowWindow, in_chunks

LANCZOS_SUPPORT_PX = 3.0
"""Half the width of the kernel, in pixels of the coarser of the two grids."""


def resize_bands(
    bands: Iterable[Band], *, height_px: int, width_px: int, to_height_px: int, to_width_px: int
) -> Iterator[Band]:
    """Resample a stream of bands with Pillow's Lanczos-3, whose kernel widens for smaller outputs, against aliasing.

    Args:
        bands: (channels, rows, width_px) float32, height_px rows in all.
        height_px: height of the input. Likewise `width_px`.
        to_height_px: height of the output. Likewise `to_width_px`.

    Yields:
        (channels, rows, to_width_px) float32, not clamped; to_height_px rows in all. The values are those of Pillow
        for the whole image, however it is divided into bands.
    """
    if (height_px, width_px) == (to_height_px, to_width_px):
        yield from bands
        return
    window = RowWindow(bands)
    step = height_px / to_height_px
    reach = LANCZOS_SUPPORT_PX * max(step, 1.0) + 1
    for start, stop in in_chunks(to_height_px):
        top = max(0, int(start * step - reach))
        bottom = min(height_px, int(np.ceil(stop * step + reach)))
        rows = window.rows(top, bottom)
        box = (0.0, start * step - top, float(width_px), min(stop * step - top, float(bottom - top)))
        yield np.stack([_resize_plane(plane, (to_width_px, stop - start), box) for plane in rows])


def _resize_plane(plane: Band, size: tuple[int, int], box: tuple[float, float, float, float]) -> Band:
    """Resample the `box` (left, top, right, bottom) of a plane to `size` (width, height)."""
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=box))
