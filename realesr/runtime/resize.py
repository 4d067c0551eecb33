"""Resamples a stream of bands with Lanczos-3 or a triangle, in float32 and in bounded memory."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from realesr.runtime.rows import ROWS_A_CHUNK, Band, RowWindow, in_chunks

if TYPE_CHECKING:
    from PIL.Image import Resampling

Kernel = Literal["lanczos", "triangle"]

LANCZOS_SUPPORT_PX = 3.0
"""Half the width of the kernel, in pixels of the coarser of the two grids."""
_KERNELS: dict[Kernel, tuple[str, float]] = {"lanczos": ("LANCZOS", LANCZOS_SUPPORT_PX), "triangle": ("BILINEAR", 1.0)}
"""Pillow's name of a kernel, and half its width in the same unit."""


def resize_bands(
    bands: Iterable[Band],
    *,
    height_px: int,
    width_px: int,
    to_height_px: int,
    to_width_px: int,
    kernel: Kernel = "lanczos",
) -> Iterator[Band]:
    """Resample a stream of bands with one of Pillow's kernels, which widen for smaller outputs, against aliasing.

    Args:
        bands: (channels, rows, width_px) float32, height_px rows in all.
        height_px: height of the input. Likewise `width_px`.
        to_height_px: height of the output. Likewise `to_width_px`.
        kernel: Lanczos-3 keeps edges sharp; a triangle, which is linear interpolation, makes no ringing.

    Yields:
        (channels, rows, to_width_px) float32, not clamped; to_height_px rows in all. The values are those of Pillow
        for the whole image, however it is divided into bands.
    """
    if (height_px, width_px) == (to_height_px, to_width_px):
        yield from bands
        return
    from PIL.Image import Resampling  # 10 ms that a start without resizing is spared

    name, support_px = _KERNELS[kernel]
    resampling = Resampling[name]
    if to_width_px < width_px:  # across first, so that the window holds short rows; Pillow has the same order
        bands, width_px = _narrowed(bands, width_px, to_width_px, resampling), to_width_px
    window = RowWindow(bands)
    step = height_px / to_height_px
    reach = support_px * max(step, 1.0) + 1
    for start, stop in in_chunks(to_height_px, max(1, int(ROWS_A_CHUNK / max(step, 1.0)))):
        top = max(0, int(start * step - reach))
        bottom = min(height_px, int(np.ceil(stop * step + reach)))
        rows = window.rows(top, bottom)
        box = (0.0, start * step - top, float(width_px), min(stop * step - top, float(bottom - top)))
        yield np.stack([_resize_plane(plane, (to_width_px, stop - start), box, resampling) for plane in rows])


def _narrowed(bands: Iterable[Band], width_px: int, to_width_px: int, resampling: "Resampling") -> Iterator[Band]:
    """Resample the rows of a stream of bands to another width."""
    for band in bands:
        rows = band.shape[1]
        box = (0.0, 0.0, float(width_px), float(rows))
        yield np.stack([_resize_plane(plane, (to_width_px, rows), box, resampling) for plane in band])


def _resize_plane(
    plane: Band, size: tuple[int, int], box: tuple[float, float, float, float], resampling: "Resampling"
) -> Band:
    """Resample the `box` (left, top, right, bottom) of a plane to `size` (width, height)."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize(size, resampling, box=box))
