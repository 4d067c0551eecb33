"""How strongly a JPEG file was compressed, from its quantisation tables: no pixel is decoded."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The table for luma that quality 50 stands for. Source: ITU-T T.81, annex K, table K.1.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


def quality_of_file(path: Path) -> int | None:
    """Quality of a JPEG file, 1 to 100, on libjpeg's scale; None where it has no table.

    Programs with a scale of their own (cameras, photo editors) get the nearest quality of libjpeg.

    Raises:
        OSError: the file cannot be read, or its head is damaged.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    with JpegImageFile(path) as image:
        tables = getattr(image, "quantization", {})
    return quality_of_table(np.array(tables[0]).reshape(8, 8)) if 0 in tables else None


def quality_of_table(luma: NDArray[np.int_]) -> int:
    """The quality, 1 to 100, whose table is nearest to an (8, 8) one, by the mean ratio of the entries."""
    ratios = np.abs(np.log(np.maximum(luma, 1) / _TABLES)).mean(axis=(1, 2))
    return int(np.argmin(ratios)) + 1


def _table(quality: int) -> NDArray[np.int_]:
    """libjpeg's table for luma. Source: libjpeg, jcparam.c, jpeg_quality_scaling and jpeg_add_quant_table."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    table: NDArray[np.int_] = np.clip((_LUMA * percent + 50) // 100, 1, 255)
    return table


_TABLES = np.stack([_table(quality) for quality in range(1, 101)])
