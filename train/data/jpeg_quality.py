"""Tells how strongly a JPEG file was compressed, from its quantisation tables: no pixel is decoded."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realesr.train.degrade.jpeg_tables import tables_by_quality


def quality_of_file(path: Path) -> int | None:
    """Return the quality of a JPEG file, 1 to 100, on libjpeg's scale; None where it has no table.

    Programs with a scale of their own (cameras, photo editors) get the nearest quality of libjpeg.

    Raises:
        OSError: the file cannot be read, or its head is damaged.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    with JpegImageFile(path) as image:
        tables = getattr(image, "quantization", {})
    return quality_of_table(np.array(tables[0]).reshape(8, 8)) if 0 in tables else None


def quality_of_table(luma: NDArray[np.int_]) -> int:
    """Return the quality, 1 to 100, whose table is nearest to an (8, 8) one, by the mean ratio of the entries."""
    ratios = np.abs(np.log(np.maximum(luma, 1) / tables_by_quality()[:, 0])).mean(axis=(1, 2))
    return int(np.argmin(ratios)) + 1
