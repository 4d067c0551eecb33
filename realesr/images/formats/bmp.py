"""Opens BMP files with Pillow, which decodes them whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realesr.images.decoded import Decoded, ReadOptions, check_page, image_from_array
from realesr.images.formats.by_pillow import pillow_errors

if TYPE_CHECKING:
    from PIL.Image import Image


def open_bmp(path: Path, options: ReadOptions) -> Decoded:
    """Open a BMP file.

    Raises:
        InputError: damaged, truncated, too large, or not page 0.
    """
    from PIL.BmpImagePlugin import BmpImageFile

    check_page(path, options.page, 1)
    with pillow_errors(path), BmpImageFile(path) as image:
        options.check_size(path, *image.size)
        array = _array_from(image)
        return Decoded(
            image=image_from_array(array),
            space="grey" if array.shape[2] < 3 else "rgb",
            has_alpha=array.shape[2] in (2, 4),
            bits=8,
            pixels_per_mm=_pixels_per_mm(image),
        )


def _array_from(image: "Image") -> NDArray[Any]:
    """Convert a Pillow image of 8 bit or less to a (H, W, C) array."""
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _pixels_per_mm(image: "Image") -> tuple[float, float] | None:
    """Return the resolution across and down, where the file states one."""
    dpi = image.info.get("dpi")
    if not dpi or min(dpi) <= 0:
        return None
    return float(dpi[0]) / 25.4, float(dpi[1]) / 25.4
